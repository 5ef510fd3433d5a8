"""What scores a pair of rows where an inner product does not: a model's dense layers, on any machine with torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from safetensors.numpy import load, save
from torch import Tensor

from sparkrec.config import model_settings
from sparkrec.errors import InputError
from sparkrec.fields import Entries, Layout
from sparkrec.kernels.arrays import F32, I64, Lists
from sparkrec.kernels.gradients import field_pairs
from sparkrec.models.base.field_model import FieldModel
from sparkrec.models.base.inputs import feature_batch, next_item_inputs
from sparkrec.models.base.recommender import Recommender, Sizes
from sparkrec.models.base.sequence_model import SequenceModel
from sparkrec.models.base.settings import NetworkSettings
from sparkrec.models.fm import FM
from sparkrec.models.lr import LR

PAIRS = 1 << 16
"""Scored at a time: so many that layers of a few dozen units stay in a core's cache."""


_AT_ONCE = 1 << 10
"""Histories."""
HEAD_FILE = "head.safetensors"
"""Its name beside the tables of a model."""
_FEATURES, _EXTRA = "features", "extra"


Side: TypeAlias = tuple[I64, F32, Entries]
"""Ids (n,), rows (n, d) and entries of users or items."""


@dataclass(frozen=True)
class Head:
    """`combine` of a trained model, without its tables of users and items."""

    settings: dict[str, Any]
    """Of the model, as plain values."""
    weights: dict[str, F32]
    """By name, of its dense layers; `features` are the rows of all features, `extra` those of items that are none."""
    layout: Layout | None = None
    """Of the features, of models that have such."""
    codes: str = ""
    """Digest of the codes of the fields, `FieldCodes.digest`."""
    length: int | None = None
    """Events of a history, of models that see such."""

    @classmethod
    def of(cls, settings: Any, model: Recommender, codes: str = "") -> Head:
        weights = {name: each.detach().cpu().numpy() for name, each in model.named_parameters()}
        layout = None
        if isinstance(model, FieldModel):
            layout, weights[_FEATURES] = model.layout, model.items.weight[model.n_items :].cpu().numpy().copy()
        length = None
        if isinstance(model, SequenceModel):
            extra = model.items.weight[len(model.items.weight) - model.extra_items :]
            length, weights[_EXTRA] = model.length, extra.cpu().numpy().copy()
        return cls(settings.model_dump(mode="json"), weights, layout, codes, length)

    def to_bytes(self) -> bytes:
        """A safetensors file that carries its settings."""
        said = {"settings": json.dumps(self.settings), "codes": self.codes}
        if self.layout is not None:
            said["layout"] = json.dumps(self.layout.to_json())
        if self.length is not None:
            said["length"] = str(self.length)
        data: bytes = save(dict(self.weights), said)
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Head:
        end = 8 + int.from_bytes(data[:8], "little")
        said = json.loads(data[8:end])["__metadata__"]
        layout = Layout.from_json(json.loads(said["layout"])) if "layout" in said else None
        length = int(said["length"]) if "length" in said else None
        return cls(json.loads(said["settings"]), load(data), layout, said["codes"], length)

    def scores(self, users: F32, items: F32) -> F32:
        """(a, d) and (b, d) -> (a, b)."""
        out = np.empty((len(users), len(items)), np.float32)
        step = max(PAIRS // max(len(items), 1), 1)
        w = _tensor(items)[None]
        with torch.inference_mode():
            for first in range(0, len(users), step):
                x = _tensor(users[first : first + step])[:, None]
                out[first : first + step] = self._module.combine(x, w).numpy()
        return out

    def score_pairs(self, users: F32, items: F32, pairs: Lists) -> F32:
        """Scores of row u of `users` with the rows of `items` in list u, (nnz,)."""
        rows = np.repeat(np.arange(len(users)), np.diff(pairs[0]))
        out = np.empty(len(rows), np.float32)
        with torch.inference_mode():
            for first in range(0, len(rows), PAIRS):
                some = slice(first, first + PAIRS)
                x, w = torch.from_numpy(users[rows[some]]), torch.from_numpy(items[pairs[1][some]])
                out[some] = self._module.combine(x, w).numpy()
        return out

    @property
    def row(self) -> int:
        """Numbers in the row of a user or item, before their features."""
        return self._fields.row

    @property
    def folds(self) -> bool:
        """Whether its scores are inner products of vectors that `fold_queries` and `fold_items` make."""
        return type(self._module).vectors is not Recommender.vectors

    def queries(self, ids: I64, users: F32, entries: Entries) -> F32:
        """Rows of (n,) queries as `scores` takes them, from (n, d) rows of their users and what is known of them."""
        module = self._fields
        with torch.inference_mode():
            return _array(module.query_rows(_tensor(users), self._known(ids, entries, module.n_query)))

    def items(self, ids: I64, items: F32, entries: Entries) -> F32:
        """The same of items."""
        module = self._fields
        with torch.inference_mode():
            return _array(module.item_rows(_tensor(items), self._known(ids, entries, module.n_item)))

    def fold_queries(self, rows: F32) -> F32:
        """(n, p) as `queries` makes them -> (n, d) vectors."""
        return self._folded(_tensor(rows), None)

    def fold_items(self, rows: F32) -> F32:
        """(n, q) as `items` makes them -> (n, d) vectors."""
        return self._folded(None, _tensor(rows))

    def states(self, users: F32, histories: Lists, items: F32) -> F32:
        """(n, p) vectors of those who ask what comes after their histories, places in `items`; of models that see such.

        users  (n, d) their rows
        items  (m, q) rows of all items
        """
        module = self._module
        assert isinstance(module, SequenceModel)
        assert self.length is not None
        if len(module.items.weight) != len(items) + module.extra_items:
            module.items.weight = torch.from_numpy(np.concatenate((items, self.weights[_EXTRA])))
        module.users.weight = _tensor(users)
        found = []
        for first in range(0, len(users), _AT_ONCE):
            start = histories[0][first : first + _AT_ONCE + 1]
            shown = next_item_inputs((start, histories[1]), type(module), self.length, len(items))
            rows = torch.arange(first, first + len(start) - 1)
            with torch.inference_mode():
                found.append(module.query(rows, shown.tensors(torch.device("cpu"))).numpy())
        return np.concatenate(found)

    @property
    def state_size(self) -> int:
        """Numbers in a vector that `states` and `answers` make."""
        return int(self.answers(self._module.items.weight[:0].numpy()).shape[1])

    def answers(self, items: F32) -> F32:
        """(m, q) rows of items -> (m, p) vectors."""
        assert isinstance(self._module, SequenceModel)
        return _array(self._module.answers(_tensor(items)))

    def score_events(self, users: Side, items: Side) -> F32:
        """(n,) of n queries, each of one item; by a kernel for lr and fm."""
        if not self.folds:
            return self.score_rows(self.queries(*users), self.items(*items))
        assert self.layout is not None
        features, constant = np.ascontiguousarray(self.weights[_FEATURES]), float(self.weights["constant"])
        of_users, of_items = (np.ascontiguousarray(rows) for _, rows, _ in (users, items))
        vectors = (self._vectors(entries) for _, _, entries in (users, items))
        return field_pairs.scores(of_users, of_items, features, constant, *vectors)

    def _vectors(self, entries: Entries) -> field_pairs.Vectors:
        assert self.layout is not None
        row = entries.row.astype(np.int64)
        return field_pairs.Vectors(entries.start, row, entries.weight, self.layout.field_of[row], np.zeros(0, np.int32))

    def score_rows(self, queries: F32, items: F32) -> F32:
        """(n, p) and (n, q) -> (n,)."""
        with torch.inference_mode():
            return _array(self._module.combine(_tensor(queries), _tensor(items)))

    def contributions(self, queries: F32, items: F32) -> tuple[list[tuple[str, str | None]], F32]:
        """What the score of each row is the sum of, for lr and fm: fields by themselves, pairs of them, and the
        constant (n, terms); and which they are. Raises InputError for other models, whose scores are no such sum."""
        module = self._fields
        if not isinstance(module, LR | FM):
            raise InputError(
                f"a {self.settings['kind']} is no sum over fields and pairs of them, as lr and fm are: ask for the "
                "importance of its fields instead"
            )
        names = module.layout.names
        f, g = np.triu_indices(len(names), 1)
        with torch.inference_mode():
            fields = module.fields(_tensor(queries), _tensor(items)).numpy()
        vectors = fields[..., 1:]
        parts = [fields[..., 0], (vectors[:, f] * vectors[:, g]).sum(-1)] if vectors.shape[-1] else [fields[..., 0]]
        pairs: list[tuple[str, str | None]] = [(names[a], names[b]) for a, b in zip(f, g, strict=True)]
        terms: list[tuple[str, str | None]] = [(name, None) for name in names]
        constant = np.full((len(fields), 1), float(module.constant.detach()), np.float32)
        return [*terms, *(pairs if len(parts) > 1 else []), ("constant", None)], np.concatenate(
            (*parts, constant), axis=1
        )

    def columns(self, field: str) -> tuple[str, list[int]]:
        """Where a field is: columns of `queries`, or of `items`."""
        module = self._fields
        place = module.layout.names.index(field)
        return "query" if place < module.n_query else "item", module.columns(place)

    def _folded(self, queries: Tensor | None, items: Tensor | None) -> F32:
        module = self._fields
        nothing = torch.zeros(0, max(module.n_query, module.n_item) * module.row)
        with torch.inference_mode():
            vectors = module.vectors(nothing if queries is None else queries, nothing if items is None else items)
            assert vectors is not None
            return _array(vectors[0] if items is None else vectors[1])

    def _known(self, ids: I64, entries: Entries, n_fields: int) -> Any:
        assert self.layout is not None
        return feature_batch(self.layout, n_fields - 1, ids, entries, torch.device("cpu"))

    @property
    def model_settings(self) -> NetworkSettings:
        """Of the model."""
        return cast(NetworkSettings, model_settings(self.settings))

    @property
    def _fields(self) -> FieldModel:
        assert isinstance(self._module, FieldModel)
        return self._module

    @cached_property
    def _module(self) -> Recommender:
        sizes = Sizes(layout=self.layout or Layout(), length=self.length or 1)
        module: Recommender = self.model_settings.network(sizes)
        weights = {name: torch.from_numpy(each.copy()) for name, each in self.weights.items()}
        if _FEATURES in weights:
            module.items.weight.copy_(weights.pop(_FEATURES))
        weights.pop(_EXTRA, None)
        module.load_state_dict(weights, strict=False)
        return module.eval()

    def __getstate__(self) -> dict[str, Any]:
        names = ("settings", "weights", "layout", "codes", "length")
        return {name: getattr(self, name) for name in names}  # without the module: it is built where it works


def _array(values: Tensor) -> F32:
    out: F32 = values.contiguous().numpy()
    return out


def _tensor(rows: F32) -> Tensor:
    """A view; a copy of what may not be written to, as Arrow's arrays may not: torch would warn of it."""
    return torch.from_numpy(np.require(rows, requirements="W"))
