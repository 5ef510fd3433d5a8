"""The loss of a batch by a model, with its gradients left to torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from sparkrec.config import TrainingSettings
from sparkrec.models.base.recommender import Features, Recommender
from sparkrec.training.batches.batch import Batch
from sparkrec.training.batches.pairs import Batches
from sparkrec.training.inputs.ids import InputReader
from sparkrec.training.losses import ALL_ITEMS, Scored, loss_of
from sparkrec.training.streamed import streamed_softmax


@dataclass(frozen=True)
class BatchLoss:
    """Called with a batch, it returns the sum of the losses of its positives."""

    model: Recommender
    reader: InputReader
    settings: TrainingSettings
    batches: Batches

    def __call__(self, batch: Batch) -> Tensor:
        users, of, items, features = self._inputs(batch)
        half = self.settings.precision == "bfloat16"
        with torch.autocast(self.reader.device.type, torch.bfloat16, enabled=half):
            if self.settings.loss == "full_softmax" and (vectors := self.model.factors(users, items[0], features)):
                target, confidence = self._on_device(batch.items[:, 0]).long(), self._on_device(batch.confidence)
                return streamed_softmax(vectors[0].float(), vectors[1].float(), target, confidence, of)
            if self.settings.loss in ALL_ITEMS:
                return self._of_scores(batch, self.model.score(users, items, features).float(), of)
            return self._of_scores(batch, self.model.score(users, items, features, of).float(), None)

    def scores(self, batch: Batch) -> Tensor:
        """(b, k) of the items that the loss compares."""
        users, of, items, features = self._inputs(batch)
        return self.model.score(users, items, features, None if self.settings.loss in ALL_ITEMS else of)

    def _inputs(self, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor, Features | None]:
        """Rows of users, which of them each positive is of, items, and what the model takes besides them."""
        items, (users, of) = self._items(batch), batch.queries
        every = None if of is None else self._on_device(of)
        return self._on_device(users), every, self._on_device(items), self.reader.features_of(batch, items)

    def _items(self, batch: Batch) -> Tensor:
        """(b, k), or (1, k) that all rows share."""
        if self.settings.loss in ALL_ITEMS:
            return torch.arange(self.batches.shards.n_items)[None]
        items = torch.from_numpy(batch.items).long()
        return items[:, 0][None] if self.batches.in_batch else items

    def _of_scores(self, batch: Batch, scores: Tensor, of: Tensor | None) -> Tensor:
        n = len(batch.users)
        positive = torch.zeros(n, dtype=torch.long)
        if self.settings.loss in ALL_ITEMS:
            positive = torch.from_numpy(batch.items[:, 0]).long()
        elif self.batches.in_batch:
            positive = torch.arange(n)
        drawn, excluded = batch.log_expected, batch.false_negatives
        scored = Scored(
            scores=scores,
            positive=self._on_device(positive),
            values=self._on_device(batch.values),
            confidence=self._on_device(batch.confidence),
            user_positives=self._on_device(batch.user_positives),
            log_expected=None if drawn is None else self._on_device(drawn).float(),
            false_negatives=None if excluded is None else self._on_device(excluded),
            drawn_share=self.batches.negatives / max(self.batches.shards.n_items - 1, 1),
            of=of,
        )
        return loss_of(self.settings, scored)

    def _on_device(self, values: NDArray[Any] | Tensor) -> Tensor:
        return torch.as_tensor(values).to(self.reader.device)
