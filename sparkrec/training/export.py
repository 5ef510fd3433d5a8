"""What a run has trained, as the rows and the head of a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparkrec.fields import Entries, Layout
from sparkrec.kernels.arrays import F32, I64
from sparkrec.models.base.field_model import FieldModel
from sparkrec.models.base.recommender import Recommender, Sizes
from sparkrec.models.base.scorer import Head
from sparkrec.models.base.sequence_model import SequenceModel
from sparkrec.shards import Shards
from sparkrec.training.checkpoints import Checkpoints


@dataclass(frozen=True)
class Trained:
    """The best epoch of a run."""

    settings: Any
    checkpoints: Checkpoints
    epoch: int
    shards: Shards
    """What it was trained on."""
    codes: str = ""
    """Digest of the codes of its features."""

    @classmethod
    def of(cls, settings: Any, folder: str, state: dict[str, Any], shards: str, codes: str = "") -> Trained:
        epoch = state["best_epoch"] or state["epoch"]
        return cls(settings, Checkpoints(folder, 0, 1), epoch, Shards.open(shards), codes)

    def items(self) -> F32:
        """(n_items, d): vectors, or what the head takes of an item; of models of features as it was known when the last
        example took place."""
        rows = self.checkpoints.shared(self.epoch)["items.weight"][: self.shards.n_items]
        head = self.head()
        if head is None or head.layout is None:
            return self._rows(None, rows)
        ids = np.arange(len(rows))
        entries = Entries.none(len(ids))
        if head.layout.item:
            entries = self.shards.item_features.at(ids, np.full(len(ids), self.shards.manifest["until"]))
        return head.items(ids, rows.numpy(), entries)

    def users(self) -> Iterator[tuple[I64, F32]]:
        """Ids and rows (n, d), of one process after the other: vectors, or what the head takes of a user."""
        for part in self.checkpoints.users(self.epoch):
            yield part["ids"].numpy(), self._rows(part["weight"], None)

    def stranger(self) -> list[float]:
        """The row of a user without examples: what is known of the items decides."""
        nobody = torch.zeros(1, self._module().users.weight.shape[1])
        return [float(each) for each in self._rows(nobody, None)[0]]

    def head(self) -> Head | None:
        """None where the scores are inner products of users' and items' rows."""
        module = self._module()
        if isinstance(module, FieldModel | SequenceModel) or self._vectors(module, None, None) is None:
            return Head.of(self.settings, module, self.codes)
        return None

    def _rows(self, users: Tensor | None, items: Tensor | None) -> F32:
        with torch.no_grad():
            vectors = self._vectors(self._module(), users, items)
        given = users if items is None else items
        assert given is not None
        rows = given if vectors is None else vectors[0 if items is None else 1]
        out: F32 = rows.contiguous().numpy()
        return out

    def _vectors(self, module: Recommender, users: Tensor | None, items: Tensor | None) -> tuple[Tensor, Tensor] | None:
        if isinstance(module, FieldModel | SequenceModel):
            return None  # of a user's row there is none before its features or its history are known
        nobody, nothing = module.users.weight[:0], module.items.weight[:0]
        return module.vectors(nobody if users is None else users, nothing if items is None else items)

    def _module(self) -> Recommender:
        """Its dense layers, without the tables of users and items."""
        sizes = Sizes(layout=self.shards.layout or Layout(), length=self.shards.length)
        module: Recommender = self.settings.network(sizes)
        shared = self.checkpoints.shared(self.epoch)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(shared[f"dense.{name}"])
            if len(module.items.weight):
                module.items.weight.copy_(shared["items.weight"][self.shards.n_items :])
        return module
