"""What scores a pair of rows where an inner product does not: a model's dense layers, on any machine with torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from safetensors.numpy import load, save

from sparkrec.config import ModelSettings
from sparkrec.kernels.arrays import F32, Lists
from sparkrec.models import MODELS
from sparkrec.models.recommender import Recommender

PAIRS = 1 << 16
"""Scored at a time: so many that layers of a few dozen units stay in a core's cache."""


HEAD_FILE = "head.safetensors"
"""Its name beside the tables of a model."""


@dataclass(frozen=True)
class Head:
    """`combine` of a trained model, without its tables."""

    settings: dict[str, Any]
    """Of the model, as plain values."""
    weights: dict[str, F32]
    """By name, of its dense layers."""

    @classmethod
    def of(cls, settings: Any, model: Recommender) -> Head:
        return cls(
            settings.model_dump(mode="json"), {name: each.detach().numpy() for name, each in model.named_parameters()}
        )

    def to_bytes(self) -> bytes:
        """A safetensors file that carries its settings."""
        data: bytes = save(dict(self.weights), {"settings": json.dumps(self.settings)})
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Head:
        length = int.from_bytes(data[:8], "little")
        settings = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["settings"])
        return cls(settings, load(data))

    def scores(self, users: F32, items: F32) -> F32:
        """(a, d) and (b, d) -> (a, b)."""
        out = np.empty((len(users), len(items)), np.float32)
        step = max(PAIRS // max(len(items), 1), 1)
        w = torch.from_numpy(items)[None]
        with torch.inference_mode():
            for first in range(0, len(users), step):
                x = torch.from_numpy(users[first : first + step])[:, None]
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
    def model_settings(self) -> Any:
        """A ModelSettings."""
        return TypeAdapter(ModelSettings).validate_python(self.settings)

    @cached_property
    def _module(self) -> Recommender:
        module = MODELS[self.settings["kind"]](self.model_settings, 0, 0)
        module.load_state_dict(
            {name: torch.from_numpy(each.copy()) for name, each in self.weights.items()}, strict=False
        )
        return module.eval()

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings, "weights": self.weights}  # without the module: it is built where it works
