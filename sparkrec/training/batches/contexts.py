"""The batches of an epoch of item2vec: events, those around them, and negatives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sparkrec.kernels.arrays import F64, I32, I64, frozen
from sparkrec.kernels.csr import distinct_in_parts
from sparkrec.kernels.gradients.contexts import Contexts
from sparkrec.kernels.ragged import joined_starts, starts_of
from sparkrec.kernels.random import uniform
from sparkrec.shards import Shard
from sparkrec.training.batches.batch import Batch
from sparkrec.training.batches.pairs import Batches
from sparkrec.training.batches.sequences import OrderedSequences, SequenceBatches, joined_columns

_SHUFFLES, _STAYS, _REACHES = 1, 2, 3
"""Streams of random numbers beside that of the negatives."""


class SamplesContexts(Protocol):
    """What a model of contexts says of how they are drawn."""

    asks: str
    window: int
    """Most places between two events that are around each other."""
    subsample: float
    """As of `chances`; 0: all events stay."""
    shuffle: bool
    """Whether the order of a history is drawn anew in each epoch."""


@dataclass(frozen=True)
class ContextBatches(SequenceBatches):
    """`batch` sequences in a step, each with the events that stay in the epoch. The positives of a step are counted as
    if all stayed."""

    window: int = 5
    shuffle: bool = False
    stays: F64 | None = field(default=None, repr=False)
    """(m,) chance of each item; None: all stay."""

    @classmethod
    def of(cls, batches: Batches, model: SamplesContexts) -> ContextBatches:  # type: ignore[override]
        own = {name: getattr(batches, name) for name in Batches.__dataclass_fields__}
        stays = chances(batches.shards.item_counts, model.subsample) if model.subsample else None
        return cls(**own, asks=model.asks, window=model.window, shuffle=model.shuffle, stays=stays)

    @property
    def positives(self) -> float:
        return self.shards.mean_length

    def _questions(self, shard: Shard, epoch: int, steps: int) -> Any:
        return _Around(self, shard, epoch, steps)

    def _joined(self, parts: list[Batch], total: float, *more: Any) -> Batch:
        columns = joined_columns(parts)
        given = [part.contexts for part in parts if part.contexts is not None]
        item = frozen(columns["items"], np.int32, "item", 2)
        whole = np.array([0, item.size])
        items, _, place = distinct_in_parts(item.ravel(), whole, self.shards.n_items, "items")
        contexts = Contexts(
            frozen(joined_starts([each.start for each in given]), np.int64, "start"),
            item,
            frozen(np.concatenate([each.reach for each in given]), np.int32, "reach"),
            place.reshape(item.shape),
            items,
        )
        return Batch(**columns, total=total, contexts=contexts)  # type: ignore[arg-type]


def chances(counts: I64, subsample: float) -> F64:
    """(m,) with which an event of each item stays: sqrt(t / f) + t / f of its share f, at most 1, as word2vec's code
    has it."""
    share = np.maximum(counts, 1) / max(counts.sum(), 1)
    found: F64 = np.minimum(np.sqrt(subsample / share) + subsample / share, 1.0)
    return found


class _Around(OrderedSequences):
    """The events of a shard's sequences."""

    batches: ContextBatches

    def step(self, step: int, offset: int) -> Batch:
        some, begin = self.of_step(step)
        items, numbers = some.items, np.arange(begin, begin + len(some.items))
        of = np.repeat(np.arange(len(some.rows)), some.lengths)
        if self.batches.shuffle:
            order = np.argsort(of + self._chance(_SHUFFLES, numbers))
            items, numbers = items[order], numbers[order]
        if self.batches.stays is not None:
            there = self._chance(_STAYS, numbers) < self.batches.stays[items]
            items, numbers, of = items[there], numbers[there], of[there]
        start = starts_of(np.bincount(of, minlength=len(some.rows)))
        reach = (1 + self._chance(_REACHES, numbers) * self.batches.window).astype(np.int32)
        rows = some.rows[of]
        drawn: I32 = self.with_negatives(items[:, None], rows, begin)
        ones = np.ones(len(rows), np.float32)
        contexts = Contexts(start, drawn, reach, drawn, start)
        user_positives = self.shard.positives.degrees[rows]
        return Batch(rows + offset, drawn, ones, ones, user_positives, 0, contexts=contexts)

    def _chance(self, stream: int, numbers: I64) -> NDArray[np.float64]:
        return uniform(self.key ^ stream, numbers)
