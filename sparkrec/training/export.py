"""What a run has trained, as the rows and the scorer of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparkrec import storage
from sparkrec.fields import FieldSchema
from sparkrec.kernels.arrays import F32, I64
from sparkrec.models.base.recommender import Recommender, Sizes
from sparkrec.models.base.scorers import AnyScorer, scorer_of
from sparkrec.models.base.scorers.pairs import array
from sparkrec.models.base.scorers.rows import RowEncoder
from sparkrec.models.base.settings import NetworkSettings
from sparkrec.shards import Shards
from sparkrec.training.checkpoints import Checkpoints
from sparkrec.training.inputs import READERS


@dataclass(frozen=True)
class Trained:
    """The best epoch of a run."""

    settings: NetworkSettings
    checkpoints: Checkpoints
    epoch: int
    shards: Shards
    """What it was trained on."""
    codes: str = ""
    """Digest of the codes of its features."""

    @classmethod
    def of(
        cls, settings: NetworkSettings, folder: str, state: dict[str, Any], shards: Shards, codes: str = ""
    ) -> Trained:
        epoch = state["best_epoch"] or state["epoch"]
        return cls(settings, Checkpoints(folder, 0, 1), epoch, shards, codes)

    def items(self) -> F32:
        """(n_items, d): vectors, or what the scorer takes of an item; of models of fields as it was known when the last
        example took place."""
        shared = self.checkpoints.shared(self.epoch)
        rows = shared.get("items.computed", shared["items.weight"])[: self.shards.n_items]
        scorer = self.scorer()
        if scorer is None:
            return self._vectors(None, rows)
        reader = READERS[scorer.sees](self.shards, np.zeros(0, np.int64), rows.device)
        return scorer.item_rows(rows.numpy(), reader.item_entries())

    def users(self) -> Iterator[tuple[I64, F32]]:
        """Ids and rows (n, d), of one process after the other: vectors, or what the scorer takes of a user."""
        for part in self.checkpoints.users(self.epoch):
            yield part["ids"].numpy(), self._users(part.get("computed", part["weight"]))

    def stranger(self) -> list[float]:
        """The row of a user without examples: what is known of the items decides."""
        with torch.no_grad():
            return [float(each) for each in self._users(self._module.stranger())[0]]

    def scorer(self) -> AnyScorer | None:
        """None where the scores are inner products of users' and items' rows."""
        return None if self._module.publishes_vectors else scorer_of(self.settings, self._module, self.codes)

    def encoder(self) -> RowEncoder | None:
        """What makes the row of a user from all that the user has, of models that see it; else None."""
        if self._module.sees != "rows":
            return None
        whole = self.settings.network(Sizes(items=self.shards.n_items))
        whole.load_state_dict(dict(self._module.named_parameters()), strict=False)
        whole.items.weight.copy_(self.checkpoints.shared(self.epoch)["items.weight"])
        return RowEncoder.of(self.settings, whole)

    def learned(self) -> dict[str, Callable[[], bytes]]:
        """The files of its checkpoint, by name: a later model goes on from them."""
        folder = self.checkpoints.folder_of(self.epoch)
        names = (name for name in storage.files(folder) if name.endswith(".safetensors"))
        return {name: partial(storage.read, f"{folder}/{name}") for name in names}

    def _users(self, rows: Tensor) -> F32:
        scorer = self.scorer()
        return self._vectors(rows, None) if scorer is None else scorer.user_rows(array(rows))

    def _vectors(self, users: Tensor | None, items: Tensor | None) -> F32:
        """Of rows of users, or of items."""
        module = self._module
        nobody, nothing = module.users.weight[:0], module.items.weight[:0]
        with torch.no_grad():
            vectors = module.vectors(nobody if users is None else users, nothing if items is None else items)
        assert vectors is not None
        return array(vectors[0] if items is None else vectors[1])

    @cached_property
    def _module(self) -> Recommender:
        """Its dense layers, without the tables of users and items."""
        sizes = Sizes(layout=self.shards.layout or FieldSchema(), length=self.shards.length)
        module: Recommender = self.settings.network(sizes)
        shared = self.checkpoints.shared(self.epoch)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(shared[f"dense.{name}"])
            if len(module.items.weight):
                module.items.weight.copy_(shared["items.weight"][self.shards.n_items :])
        return module.eval()
