"""The batches of an epoch of users: whole rows, of any length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparkrec.kernels.arrays import I32, I64
from sparkrec.kernels.ragged import spans, starts_of
from sparkrec.shards import Sequences, Shard
from sparkrec.training.batches.batch import Batch
from sparkrec.training.batches.pairs import Batches
from sparkrec.training.batches.sequences import COLUMNS, OrderedSequences, SequenceBatches


@dataclass(frozen=True)
class UserBatch(Batch):
    """A row for each positive, those of a user one after the other."""

    def parts(self, n: int) -> Iterator[Batch]:
        """It in n parts of whole users; whole where its positives are one another's negatives."""
        if n == 1 or self.false_negatives is not None:
            yield self
            return
        assert self.start is not None
        for some in np.array_split(np.arange(len(self.start) - 1), n):
            if not len(some):
                continue
            start = self.start[some[0] : some[-1] + 2]
            mine = slice(start[0], start[-1])
            columns = {name: getattr(self, name)[mine] for name in COLUMNS}
            log_expected = None if self.log_expected is None else self.log_expected[mine]
            yield replace(self, start=start - start[0], log_expected=log_expected, **columns)


@dataclass(frozen=True)
class UserBatches(SequenceBatches):
    """How users become batches: `batch` of them in a step, whose rows are to it sequences in no order. Users without a
    row are in none. The positives of a step are counted as if its users had the mean number of all."""

    @classmethod
    def of(cls, batches: Batches, _: Any) -> UserBatches:
        return cls(**{name: getattr(batches, name) for name in Batches.__dataclass_fields__})

    def _read(self, number: int) -> Shard:
        shard = super()._read(number)
        rows = np.flatnonzero(np.diff(shard.indptr))
        return replace(shard, sequences=Sequences(rows, np.append(shard.indptr[rows], len(shard.items)), shard.items))

    def _rows(self, number: int) -> int:
        return int(self.shards.manifest["shards"][number]["users"])

    def _in(self, shard: Shard) -> int:
        return int((np.diff(shard.indptr) > 0).sum())

    @property
    def positives(self) -> float:
        shards = self.shards.manifest["shards"]
        return sum(int(each["rows"]) for each in shards) / max(sum(int(each["users"]) for each in shards), 1)

    def _questions(self, shard: Shard, epoch: int, steps: int) -> Any:
        return _WholeRows(self, shard, epoch, steps)

    def _joined(self, parts: list[Batch], total: float, held: list[Shard], counts: I64 | None) -> Batch:
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
        lengths = np.concatenate([np.diff(part.start) for part in parts if part.start is not None])
        start = starts_of(lengths)
        batch = UserBatch(**columns, total=total, start=start)  # type: ignore[arg-type]
        if not (self.softmax or self.in_batch):
            return batch
        return self._compared(batch, np.repeat(np.arange(len(lengths)), lengths), held, counts)


class _WholeRows(OrderedSequences):
    """The rows of a shard's users."""

    def step(self, step: int, offset: int) -> UserBatch:
        some, begin = self.of_step(step)
        shard, rows = self.shard, np.repeat(some.rows, some.lengths)
        _, places = spans(shard.indptr[some.rows], some.lengths)
        items = self.with_negatives(some.items[:, None], rows, begin)
        columns = shard.values[places], shard.confidence[places], shard.positives.degrees[rows]
        return UserBatch(rows + offset, items, *columns, total=0, start=some.start)

    def targets(self) -> I32:
        """What is asked for in the epoch."""
        return self.shard.items
