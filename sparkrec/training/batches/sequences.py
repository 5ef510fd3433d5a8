"""The batches of an epoch of sequences: what is shown of them, and what is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparkrec.kernels.arrays import I32, I64
from sparkrec.kernels.ragged import joined_starts, starts_of
from sparkrec.kernels.random import uniform
from sparkrec.models.base.inputs import HistoryArrays
from sparkrec.models.base.sequence_model import SequenceModel
from sparkrec.shards import Sequences, Shard
from sparkrec.training.batches.batch import Batch
from sparkrec.training.batches.pairs import Batches, cuts_of, order_of

COLUMNS = ("users", "items", "values", "confidence", "user_positives")
"""Of a batch: arrays of a row for each question."""
_STEPS_AT_ONCE = 4


@dataclass(frozen=True)
class SequenceBatch(Batch):
    """A row for each question."""

    def parts(self, n: int) -> Iterator[Batch]:
        """It in n parts of whole sequences; whole where its positives are one another's negatives."""
        if n == 1 or self.false_negatives is not None:
            yield self
            return
        assert self.shown is not None
        items, start, at = self.shown
        for some in np.array_split(np.arange(len(start) - 1), n):
            if not len(some):
                continue
            first, stop = start[some[0]], start[some[-1] + 1]
            mine = slice(*np.searchsorted(at, (first, stop)))
            shown = HistoryArrays(items[first:stop], start[some[0] : some[-1] + 2] - first, at[mine] - first)
            columns = {name: getattr(self, name)[mine] for name in COLUMNS}
            log_expected = None if self.log_expected is None else self.log_expected[mine]
            yield replace(self, shown=shown, log_expected=log_expected, **columns)


@dataclass(frozen=True)
class SequenceStepGroup:
    """Consecutive steps, as a `pairs.StepGroup` is."""

    made: Sequence[Batch]
    totals: list[float]

    def batches(self) -> Iterator[Batch]:
        yield from self.made


@dataclass(frozen=True)
class SequenceBatches(Batches):
    """How sequences become batches: `batch` of them in a step. The positives of a step are counted as if its sequences
    had the mean length of all, so that no process needs to know the sequences of the others."""

    asks: str = "each"
    """Of the model, `SequenceModel.asks`."""
    masked: float = 0.0
    """Share of events that are hidden."""

    @classmethod
    def of(cls, batches: Batches, model: SequenceModel) -> SequenceBatches:
        own = {name: getattr(batches, name) for name in Batches.__dataclass_fields__}
        return cls(**own, asks=model.asks, masked=model.masked)

    def _rows(self, number: int) -> int:
        return self.shards.sequences(number)

    def _in(self, shard: Shard) -> int:
        assert shard.sequences is not None
        return len(shard.sequences.rows)

    @property
    def positives(self) -> float:
        """Of a sequence, in the mean."""
        if self.asks == "last":
            return float(self.shards.targets or 1)
        mean = self.shards.mean_length
        return max(self.masked * mean, 1.0) if self.asks == "masked" else mean - 1.0

    def _group(  # type: ignore[override]
        self, epoch: int, group: int, held: list[Shard], offsets: dict[int, int], steps: int, first: int
    ) -> Iterator[SequenceStepGroup]:
        sizes = [self._size(number) for number in self.shards.numbers(group)]
        asked = [self._questions(shard, epoch, steps) for shard in held]
        counts = self._counts([each.targets() for each in asked]) if self.softmax and self.in_batch else None
        for begin in range(first, steps, _STEPS_AT_ONCE):
            wanted = range(begin, min(begin + _STEPS_AT_ONCE, steps))
            totals = np.sum([np.diff(cuts_of(n, steps, wanted)) for n in sizes], axis=0) * self.positives
            made = [
                self._joined([each.step(step, offsets[each.shard.number]) for each in asked], total, held, counts)
                for step, total in zip(wanted, totals.tolist(), strict=True)
            ]
            yield SequenceStepGroup(made, totals.tolist())

    def _questions(self, shard: Shard, epoch: int, steps: int) -> Any:
        return _Asked(self, shard, epoch, steps)

    def _joined(self, parts: list[Any], total: float, held: list[Shard], counts: I64 | None) -> Batch:
        """Of several shards, as one, and what its columns are to one another."""
        batch = _joined(parts, total)
        if not (self.softmax or self.in_batch):
            return batch
        assert batch.shown is not None
        of = np.searchsorted(batch.shown.start, batch.shown.at, side="right") - 1
        return self._compared(batch, of, held, counts)

    def _compared(self, batch: Batch, of: I64, held: list[Shard], counts: I64 | None) -> Batch:
        """A batch with what its columns are to one another; `of` says which sequence each row is of."""
        false_negatives, own = None, np.ones(len(batch.users), np.int64)
        if self.in_batch:
            false_negatives = self._false_negatives(held, batch.users, batch.items[:, 0])
        if false_negatives is not None and self.softmax:  # what comes with a row is not drawn
            false_negatives |= of[:, None] == of
            own = np.bincount(of)[of]
        log_expected = self._log_expected(batch.items, counts, own) if self.softmax else None
        return replace(batch, false_negatives=false_negatives, log_expected=log_expected)


class OrderedSequences:
    """The sequences of a shard, in the order of an epoch."""

    def __init__(self, batches: SequenceBatches, shard: Shard, epoch: int, steps: int) -> None:
        assert shard.sequences is not None
        self.batches, self.shard, self.sequences, self.steps = batches, shard, shard.sequences, steps
        self.order = order_of(len(self.sequences.rows), steps, (batches.seed, epoch, shard.number))
        self.key = batches._key(epoch, shard)
        self.begin = starts_of(self.sequences.lengths[self.order])
        """Number of the first event of each sequence among those of the epoch."""

    def of_step(self, step: int) -> tuple[Sequences, int]:
        """Its sequences, and the number of the first of their events."""
        first, stop = (int(each) for each in cuts_of(len(self.order), self.steps, range(step, step + 1)))
        return self.sequences.take(self.order[first:stop]), int(self.begin[first])

    def with_negatives(self, items: Any, rows: I64, begin: int) -> Any:
        """(n, 1) items of the users `rows` and behind each its negatives, those of number `begin` first."""
        if not self.batches.negatives:
            return items
        # a sequence has no more questions than events, so that no two questions have one number
        drawn = self.batches._draw(self.shard, rows, items[:, 0], self.key, begin)
        return np.concatenate((items, drawn), axis=1)


class _Asked(OrderedSequences):
    """The questions about them."""

    def step(self, step: int, offset: int) -> SequenceBatch:
        some, begin = self.of_step(step)
        shown, items, of = self._show(some, begin)
        rows = some.rows[of]
        items = self.with_negatives(items, rows, begin)
        ones = np.ones(len(rows), np.float32)
        user_positives = self.shard.positives.degrees[rows]
        return SequenceBatch(rows + offset, items, ones, ones, user_positives, 0, shown=shown)

    def targets(self) -> I32:
        """What is asked for in the epoch."""
        found: I32 = self._show(self.sequences.take(self.order), 0)[1][:, 0]
        return found

    def _show(self, some: Sequences, begin: int) -> tuple[HistoryArrays, Any, I64]:
        """What is shown of some sequences, (n, 1) what is asked for, and of which of them; `begin` is the number of the
        first of their events."""
        show = {"each": self._each, "last": self._last, "masked": self._masked}[self.batches.asks]
        return show(some, begin)

    def _each(self, some: Sequences, _: int) -> tuple[HistoryArrays, Any, I64]:
        """Each event but the first is asked for, from those before it."""
        inputs = some.lengths - 1
        start = starts_of(inputs)
        of = np.repeat(np.arange(len(inputs)), inputs)
        places = np.arange(start[-1]) + of  # every sequence has one event more
        shown = HistoryArrays(some.items[places].astype(np.int64), start, np.arange(start[-1]))
        return shown, some.items[places + 1][:, None], of

    def _last(self, some: Sequences, _: int) -> tuple[HistoryArrays, Any, I64]:
        """The targets of a window are asked for, from the events before them."""
        lengths = some.lengths
        targets = np.minimum(self.batches.shards.targets or 1, lengths - 1)
        inputs = lengths - targets
        start = starts_of(inputs)
        before = starts_of(targets)
        places = np.arange(start[-1]) + np.repeat(before[:-1], inputs)
        of = np.repeat(np.arange(len(lengths)), targets)
        wanted = np.arange(before[-1]) + np.repeat(start[1:], targets)
        shown = HistoryArrays(some.items[places].astype(np.int64), start, (start[1:] - 1)[of])
        return shown, some.items[wanted][:, None], of

    def _masked(self, some: Sequences, begin: int) -> tuple[HistoryArrays, Any, I64]:
        """Some events are hidden and asked for, the last one where chance hides none; of the last `length` events."""
        lengths = np.minimum(some.lengths, self.batches.shards.length)
        start = starts_of(lengths)
        of = np.repeat(np.arange(len(lengths)), lengths)
        places = np.arange(start[-1]) + np.repeat(some.start[1:] - start[1:], lengths)
        hidden = uniform(self.key ^ 1, begin + places) < self.batches.masked
        none = np.add.reduceat(hidden, start[:-1]) == 0 if len(lengths) else np.zeros(0, bool)
        hidden[start[1:][none] - 1] = True
        items = some.items[places].astype(np.int64)
        at = np.flatnonzero(hidden)
        targets = some.items[places[at]][:, None]
        items[at] = self.batches.shards.n_items
        return HistoryArrays(items, start, at), targets, of[at]


def _joined(parts: list[SequenceBatch], total: float) -> SequenceBatch:
    """Of several shards, as one."""
    shown = [part.shown for part in parts if part.shown is not None]
    events = starts_of(np.array([len(each.items) for each in shown]))
    whole = HistoryArrays(
        np.concatenate([each.items for each in shown]),
        joined_starts([each.start for each in shown]),
        np.concatenate([each.at + before for each, before in zip(shown, events, strict=False)]),
    )
    return SequenceBatch(**joined_columns(parts), total=total, shown=whole)  # type: ignore[arg-type]


def joined_columns(parts: Sequence[Batch]) -> dict[str, Any]:
    """COLUMNS of batches, one batch after the other."""
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
