"""The batches of an epoch: which examples, with which negatives, at which step.

Every step takes its part of every shard, so that the processes make the same steps whatever they hold, and one process
takes the same step as two. Orders and negatives depend on (seed, epoch, shard, place) alone: a run that resumes in the
middle of an epoch needs nothing but the number of the step.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparkrec.errors import TrainError
from sparkrec.kernels.arrays import F32, I32, I64
from sparkrec.kernels.negatives import Alias, draw_negatives, is_positive
from sparkrec.kernels.pairs import Pairs
from sparkrec.shards import Shard, Shards

_AT_ONCE = 1 << 13
"""Positives whose negatives are drawn by one call, for as many steps as they make: small batches cost no more."""


@dataclass(frozen=True)
class Batch:
    """This process's part of a step."""

    users: I64
    """(b,) rows of the user table of this process."""
    items: I32
    """(b, 1 + n): a positive and its negatives."""
    values: F32
    confidence: F32
    degree: I64
    """(b,) positives of each one's user."""
    total: int
    """Positives in the step, of all processes."""
    taken: NDArray[np.bool_] | None = None
    """(b, b) where the positive of a column is one of the user of a row, or that row's own."""
    pairs: Pairs | None = None
    """The same for kernels, where they were asked for."""

    def parts(self, n: int) -> Iterator[Batch]:
        """It in n parts, whose losses add up; whole where its positives are one another's negatives."""
        if n == 1 or self.taken is not None:
            yield self
            return
        for at in np.array_split(np.arange(len(self.users)), n):
            yield replace(
                self,
                users=self.users[at],
                items=self.items[at],
                values=self.values[at],
                confidence=self.confidence[at],
                degree=self.degree[at],
            )


@dataclass(frozen=True)
class Batches:
    """How the shards of this process become batches."""

    shards: Shards
    process_rank: int
    size: int
    batch: int
    negatives: int
    alias: Alias
    seed: int
    of_batch: bool = False
    """Negatives are the other positives of the batch."""
    paired: bool = False
    """Whether batches have `pairs`."""
    _held: list[Shard] = field(default_factory=list)
    """Shards of the group that is worked on."""

    @property
    def users(self) -> I64:
        """Ids of this process's users, ascending in each shard: the rows of its user table."""
        return np.concatenate([np.zeros(0, np.int64), *(self.shards.read(number).users for number in self.mine)])

    @property
    def at_once(self) -> int:
        """Steps whose negatives are drawn together."""
        return max(_AT_ONCE // self.batch, 1)

    def steps(self) -> int:
        """In an epoch."""
        return sum(self._steps_of(group) for group in range(self.shards.groups))

    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from step `first` on."""
        offsets, held = self._offsets(), self._held
        for group in np.random.default_rng((self.seed, number)).permutation(self.shards.groups).tolist():
            steps = self._steps_of(group)
            if first >= steps:
                first -= steps
                continue
            mine = self.shards.mine(group, self.process_rank, self.size)
            if [shard.number for shard in held] != mine:
                held[:] = [self.shards.read(shard) for shard in mine]
            yield from self._group(number, group, held, offsets, steps, first)
            first = 0

    def _group(
        self, epoch: int, group: int, held: list[Shard], offsets: dict[int, int], steps: int, first: int
    ) -> Iterator[Batch]:
        sizes = [self.shards.rows(shard) for shard in self.shards.numbers(group)]
        orders = [
            np.random.default_rng((self.seed, epoch, shard.number)).permutation(len(shard.items)) for shard in held
        ]
        keys = [int(np.random.default_rng((self.seed, epoch, shard.number, 1)).integers(2**63)) for shard in held]
        for begin in range(first, steps, self.at_once):
            end = min(begin + self.at_once, steps)
            made = []
            for shard, order, key in zip(held, orders, keys, strict=True):
                cuts = [_cut(len(order), steps, at) for at in range(begin, end + 1)]
                at = np.concatenate([np.sort(order[start:stop]) for start, stop in pairwise(cuts)])  # by user
                made.append(self._part(shard, at, key, cuts[0], offsets[shard.number]))
            for step in range(begin, end):
                total = sum(_cut(n, steps, step + 1) - _cut(n, steps, step) for n in sizes)
                parts = []
                for order, each in zip(orders, made, strict=True):
                    start, *of_step = (_cut(len(order), steps, at) for at in (begin, step, step + 1))
                    parts.append(tuple(column[of_step[0] - start : of_step[1] - start] for column in each))
                yield self._joined(held, parts, total)

    def _joined(self, held: list[Shard], parts: list[tuple[NDArray[Any], ...]], total: int) -> Batch:
        taken = self._taken(held, parts) if self.of_batch else None
        columns = parts[0] if len(parts) == 1 else (np.concatenate(each) for each in zip(*parts, strict=True))
        users, items, values, confidence, degree = columns
        n_users = sum(int(self.shards.manifest["shards"][number]["users"]) for number in self.mine)
        sizes = n_users, self.shards.n_items
        pairs = Pairs.of(users, items, values, confidence, *sizes) if self.paired else None
        return Batch(users, items, values, confidence, degree, total, taken, pairs)

    def _part(self, shard: Shard, at: I64, key: int, begin: int, offset: int) -> tuple[NDArray[Any], ...]:
        rows = shard.rows[at]
        items = shard.items[at][:, None]
        if self.negatives:
            try:
                drawn = draw_negatives(key, begin, rows, shard.positives, self.alias, self.negatives)
            except ValueError:
                full = rows[shard.positives.counts(rows) >= self.shards.n_items][0]
                raise TrainError(
                    f"user {shard.users[full]} has all {self.shards.n_items} items: there is no negative to draw. "
                    "Leave this user out, or use a loss without negatives."
                ) from None
            items = np.concatenate((items, drawn), axis=1)
        return rows + offset, items, shard.values[at], shard.confidence[at], shard.positives.counts(rows)

    def _taken(self, held: list[Shard], parts: list[tuple[NDArray[Any], ...]]) -> NDArray[np.bool_]:
        positives = np.concatenate([part[1][:, 0] for part in parts])
        offsets = self._offsets()
        return np.concatenate(
            [
                is_positive(part[0] - offsets[shard.number], positives, shard.positives)
                for shard, part in zip(held, parts, strict=True)
            ]
        )

    @property
    def mine(self) -> list[int]:
        """Numbers of the shards of this process, as the user table has them."""
        return [
            shard
            for group in range(self.shards.groups)
            for shard in self.shards.mine(group, self.process_rank, self.size)
        ]

    def _offsets(self) -> dict[int, int]:
        """Where the rows of each shard's users begin in the user table."""
        counts = [int(self.shards.manifest["shards"][shard]["users"]) for shard in self.mine]
        starts = np.concatenate(([0], np.cumsum(counts)))
        return dict(zip(self.mine, starts.tolist(), strict=False))

    def _steps_of(self, group: int) -> int:
        rows = sum(self.shards.rows(shard) for shard in self.shards.numbers(group))
        return -(-rows // self.batch)


def _cut(n: int, parts: int, at: int) -> int:
    return n * at // parts


@dataclass
class Prefetched:
    """Batches made on a thread while the model works on others. `waited`: seconds that it had to wait for them."""

    make: Callable[[], Iterator[Batch]]
    ahead: int = 4
    waited: float = field(default=0.0, init=False)

    def __iter__(self) -> Iterator[Batch]:
        made: queue.Queue[Batch | BaseException | None] = queue.Queue(self.ahead)
        stopped = threading.Event()

        def put(each: Batch | BaseException | None) -> bool:
            while not stopped.is_set():
                try:
                    made.put(each, timeout=0.1)
                    return True
                except queue.Full:
                    continue
            return False

        def work() -> None:
            try:
                for batch in self.make():
                    if not put(batch):
                        return
                put(None)
            except BaseException as error:  # it is raised where the batches are wanted
                put(error)

        thread = threading.Thread(target=work, name="batches", daemon=True)
        thread.start()
        try:
            while True:
                started = time.perf_counter()
                each = made.get()
                self.waited += time.perf_counter() - started
                if each is None:
                    return
                if isinstance(each, BaseException):
                    raise each
                yield each
        finally:
            stopped.set()
            thread.join()
