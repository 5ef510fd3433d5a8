"""Scorers: a trained model's dense layers, which score what inner products do not, on any machine with torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, cast

import numpy as np
import torch
from safetensors.numpy import load, save
from torch import Tensor
from typing_extensions import Self

from sparkrec.config import model_settings
from sparkrec.fields import SparseFeatures
from sparkrec.kernels.arrays import F32, Lists
from sparkrec.kernels.ragged import rows_of
from sparkrec.models.base.recommender import Recommender, Sees, Sizes
from sparkrec.models.base.settings import NetworkSettings

PAIRS = 1 << 16
"""Pairs scored at a time: so many that layers of a few dozen units stay in a core's cache."""


@dataclass(frozen=True)
class Scorer:
    """A trained model without its tables of users and items, as a file beside them keeps it."""

    settings: dict[str, Any]
    """Of the model (a NetworkSettings), as plain values."""
    weights: dict[str, F32]
    """By name: those of its dense layers, and what a subclass adds."""

    sees: ClassVar[Sees]
    """Which models it serves."""

    @classmethod
    def of(cls, settings: NetworkSettings, model: Recommender, codes: str = "") -> Self:
        """The scorer of a trained model.

        codes  digest of the codes of the dataset's fields, `FieldCodes.digest`
        """
        weights = {name: each.detach().cpu().numpy() for name, each in model.named_parameters()}
        return cls(settings.model_dump(mode="json"), weights)

    def to_bytes(self) -> bytes:
        """A safetensors file with `metadata`."""
        data: bytes = save(dict(self.weights), self.metadata())
        return data

    def metadata(self) -> dict[str, str]:
        """What the file says besides the weights: the settings, and what a subclass adds."""
        return {"settings": json.dumps(self.settings), "codes": ""}

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The counterpart of `to_bytes`."""
        metadata = read_metadata(data)
        return cls(json.loads(metadata["settings"]), load(data))

    def item_rows(self, rows: F32, entries: SparseFeatures) -> F32:
        """(m, q) rows of all items as they are published, from their rows in the model and what is known of them."""
        return np.ascontiguousarray(rows)

    def user_rows(self, rows: F32) -> F32:
        """(n, p) rows of users as they are published, from those that the model scores by."""
        return np.ascontiguousarray(rows)

    @property
    def sizes(self) -> Sizes:
        """Those that `module` is built with."""
        return Sizes()

    @cached_property
    def module(self) -> Recommender:
        """The model in evaluation mode, its tables empty."""
        module: Recommender = cast(NetworkSettings, model_settings(self.settings)).network(self.sizes)
        module.load_state_dict({name: torch.from_numpy(each.copy()) for name, each in self.weights.items()}, False)
        return module.eval()

    def __getstate__(self) -> dict[str, Any]:
        state = {name: getattr(self, name) for name in self.__dataclass_fields__}  # a worker builds the module itself
        # A kind that no package brings is declared in the worker, too, once the class of its settings is read there.
        return state | {"_settings_class": type(model_settings(self.settings))}


@dataclass(frozen=True)
class PairScorer(Scorer):
    """Scores of rows of users and items by `Recommender.interaction`. Rows of the two sides are published with one
    length, zeros behind the shorter ones."""

    sees: ClassVar[Sees] = "ids"

    @cached_property
    def reads(self) -> tuple[int | None, int | None]:
        """How many numbers of the rows of users and of items the model takes; None: all."""
        with torch.no_grad():
            return self.module.stranger().shape[1], self.module.items.weight.shape[1]

    def user_rows(self, rows: F32) -> F32:
        return zero_padded(rows, max(size or 0 for size in self.reads))

    def item_rows(self, rows: F32, entries: SparseFeatures) -> F32:
        return zero_padded(rows, max(size or 0 for size in self.reads))

    def scores(self, users: F32, items: F32) -> F32:
        """(a, p) and (b, q) -> (a, b)."""
        out = np.empty((len(users), len(items)), np.float32)
        step = max(PAIRS // max(len(items), 1), 1)
        p, q = self.reads
        w = tensor(items)[None, :, :q]
        with torch.inference_mode():
            for first in range(0, len(users), step):
                x = tensor(users[first : first + step])[:, None, :p]
                out[first : first + step] = self.module.interaction(x, w).numpy()
        return out

    def score_pairs(self, users: F32, items: F32, pairs: Lists) -> F32:
        """Scores of row u of `users` with the rows of `items` in list u, (nnz,)."""
        rows = rows_of(pairs[0])
        out = np.empty(len(rows), np.float32)
        p, q = self.reads
        with torch.inference_mode():
            for first in range(0, len(rows), PAIRS):
                some = slice(first, first + PAIRS)
                x, w = torch.from_numpy(users[rows[some]]), torch.from_numpy(items[pairs[1][some]])
                out[some] = self.module.interaction(x[:, :p], w[:, :q]).numpy()
        return out


def read_metadata(data: bytes) -> dict[str, str]:
    """What a safetensors file says besides its tensors."""
    end = 8 + int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8:end])["__metadata__"]
    return metadata


def zero_padded(rows: F32, size: int) -> F32:
    """(n, d) -> (n, size) or as they are if that is less, with zeros behind."""
    padded: F32 = np.pad(rows, ((0, 0), (0, max(size - rows.shape[1], 0))))
    return padded


def array(values: Tensor) -> F32:
    """The tensor as an array that is contiguous."""
    out: F32 = values.contiguous().numpy()
    return out


def tensor(rows: F32) -> Tensor:
    """A view; a copy of what may not be written to, as Arrow's arrays may not: torch would warn of it."""
    return torch.from_numpy(np.require(rows, requirements="W"))
