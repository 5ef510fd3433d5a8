"""The batches of an epoch of item2vec: events, those around them, and negatives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparkrec.kernels.arrays import F64, I32, I64, frozen
from sparkrec.kernels.csr import distinct_in_parts
from sparkrec.kernels.gradients.contexts import Contexts
from sparkrec.kernels.random import uniform
from sparkrec.models.base.sequence_model import SequenceModel
from sparkrec.models.item2vec import Item2vecSettings
from sparkrec.shards import Shard
from sparkrec.training.batches.pairs import Batch, Batches
from sparkrec.training.batches.sequences import COLUMNS, Ordered, SequenceBatches

_SHUFFLES, _STAYS, _REACHES = 1, 2, 3
"""Streams of random numbers beside that of the negatives."""


@dataclass(frozen=True)
class ContextBatch(Batch):
    """A row for each event."""

    contexts: Contexts | None = None


@dataclass(frozen=True)
class ContextBatches(SequenceBatches):
    """`batch` sequences in a step, each with the events that stay in the epoch. The positives of a step are counted as
    if all stayed."""

    window: int = 5
    shuffle: bool = False
    stays: F64 | None = field(default=None, repr=False)
    """(m,) chance of each item; None: all stay."""

    @classmethod
    def of(cls, batches: Batches, model: type[SequenceModel], settings: Item2vecSettings) -> ContextBatches:
        own = {name: getattr(batches, name) for name in Batches.__dataclass_fields__}
        stays = chances(batches.shards.item_counts, settings.subsample) if settings.subsample else None
        return cls(**own, asks=model.asks, window=settings.window, shuffle=settings.shuffle, stays=stays)

    @property
    def positives(self) -> float:
        return self.shards.mean_length

    def _questions(self, shard: Shard, epoch: int, steps: int) -> Any:
        return _Around(self, shard, epoch, steps)

    def _joined(self, parts: list[ContextBatch], total: float, *more: Any) -> Batch:
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
        given = [part.contexts for part in parts if part.contexts is not None]
        ends = np.cumsum([0, *(each.start[-1] for each in given)])
        start = [each.start[:-1] + before for each, before in zip(given, ends, strict=False)]
        item = frozen(columns["items"], np.int32, "item", 2)
        whole = np.array([0, item.size])
        items, _, place = distinct_in_parts(item.ravel(), whole, self.shards.n_items, "items")
        contexts = Contexts(
            frozen(np.concatenate([*start, ends[-1:]]), np.int64, "start"),
            item,
            frozen(np.concatenate([each.reach for each in given]), np.int32, "reach"),
            place.reshape(item.shape),
            items,
        )
        return ContextBatch(**columns, total=total, contexts=contexts)  # type: ignore[arg-type]


def chances(counts: I64, subsample: float) -> F64:
    """(m,) with which an event of each item stays: sqrt(t / f) + t / f of its share f, at most 1, as word2vec's code
    has it."""
    share = np.maximum(counts, 1) / max(counts.sum(), 1)
    found: F64 = np.minimum(np.sqrt(subsample / share) + subsample / share, 1.0)
    return found


class _Around(Ordered):
    """The events of a shard's sequences."""

    batches: ContextBatches

    def step(self, step: int, offset: int) -> ContextBatch:
        some, begin = self.of_step(step)
        items, numbers = some.items, np.arange(begin, begin + len(some.items))
        of = np.repeat(np.arange(len(some.rows)), some.lengths)
        if self.batches.shuffle:
            order = np.argsort(of + self._chance(_SHUFFLES, numbers))
            items, numbers = items[order], numbers[order]
        if self.batches.stays is not None:
            there = self._chance(_STAYS, numbers) < self.batches.stays[items]
            items, numbers, of = items[there], numbers[there], of[there]
        start = np.concatenate(([0], np.cumsum(np.bincount(of, minlength=len(some.rows)))))
        reach = (1 + self._chance(_REACHES, numbers) * self.batches.window).astype(np.int32)
        rows = some.rows[of]
        drawn: I32 = self.with_negatives(items[:, None], rows, begin)
        ones = np.ones(len(rows), np.float32)
        contexts = Contexts(start, drawn, reach, drawn, start)
        user_positives = self.shard.positives.degrees[rows]
        return ContextBatch(rows + offset, drawn, ones, ones, user_positives, 0, contexts=contexts)

    def _chance(self, stream: int, numbers: I64) -> NDArray[np.float64]:
        return uniform(self.key ^ stream, numbers)
