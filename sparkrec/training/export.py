"""What a run has trained, as the rows and the head of a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparkrec.kernels.arrays import F32, I64
from sparkrec.models import MODELS
from sparkrec.models.recommender import Recommender
from sparkrec.training.checkpoints import Checkpoints
from sparkrec.training.head import Head


@dataclass(frozen=True)
class Trained:
    """The best epoch of a run."""

    settings: Any
    checkpoints: Checkpoints
    epoch: int

    @classmethod
    def of(cls, settings: Any, folder: str, state: dict[str, Any]) -> Trained:
        return cls(settings, Checkpoints(folder, 0, 1), state["best_epoch"] or state["epoch"])

    def items(self) -> F32:
        """(n_items, d)"""
        shared = self.checkpoints.shared(self.epoch)
        return self._rows(None, shared["items.weight"])

    def users(self) -> Iterator[tuple[I64, F32]]:
        """Ids and rows (n, d), of one process after the other."""
        for part in self.checkpoints.users(self.epoch):
            yield part["ids"].numpy(), self._rows(part["weight"], None)

    def stranger(self) -> list[float]:
        """The row of a user without examples: what is known of the items decides."""
        nobody = torch.zeros(1, self._module().users.weight.shape[1])
        return [float(each) for each in self._rows(nobody, None)[0]]

    def head(self) -> Head | None:
        """None where the scores are inner products."""
        module = self._module()
        return None if self._vectors(module, None, None) is not None else Head.of(self.settings, module)

    def _rows(self, users: Tensor | None, items: Tensor | None) -> F32:
        with torch.no_grad():
            vectors = self._vectors(self._module(), users, items)
        given = users if items is None else items
        assert given is not None
        rows = given if vectors is None else vectors[0 if items is None else 1]
        out: F32 = rows.contiguous().numpy()
        return out

    def _vectors(self, module: Recommender, users: Tensor | None, items: Tensor | None) -> tuple[Tensor, Tensor] | None:
        nobody, nothing = module.users.weight[:0], module.items.weight[:0]
        return module.vectors(nobody if users is None else users, nothing if items is None else items)

    def _module(self) -> Recommender:
        """Its dense layers, without the tables."""
        module = MODELS[self.settings.kind](self.settings, 0, 0)
        shared = self.checkpoints.shared(self.epoch)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(shared[f"dense.{name}"])
        return module
