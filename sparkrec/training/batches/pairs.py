"""The batches of an epoch: which examples, with which negatives, at which step.

Every step takes its part of every shard, so that the processes make the same steps whatever they hold, and one process
takes the same step as two. Orders and negatives depend on (seed, epoch, shard, place) alone: a run that resumes in the
middle of an epoch needs nothing but the number of the step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparkrec.fields import SparseFeatures
from sparkrec.kernels.arrays import F64, I32, I64
from sparkrec.kernels.csr import by_key
from sparkrec.kernels.gradients.negatives import Alias, Positives, draw_negatives, is_positive
from sparkrec.kernels.gradients.pairs import Steps
from sparkrec.kernels.ragged import starts_of
from sparkrec.shards import Shard, Shards
from sparkrec.training.batches.batch import Batch, StepGroup

_AT_ONCE = 1 << 15
"""Positives whose negatives are drawn by one call, for as many steps as they make: small batches cost no more."""


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
    in_batch: bool = False
    """Negatives are the other positives of the batch."""
    softmax: bool = False
    """Negatives stand for all items but the positive, as a softmax over all of them has it: other positives of the user
    are among them. Else they are no positives of the user."""
    paired: bool = False
    """Whether step groups have `steps`, and batches `pairs`."""
    left_out: I64 | None = None
    """(s,) how much of each shard is in no batch, as of `without_negatives`; None: nothing is."""
    _held: list[Shard] = field(default_factory=list)
    """Shards of the group that is worked on."""

    @property
    def users(self) -> I64:
        """Ids of this process's users, ascending in each shard: the rows of its user table."""
        return users_of(self.shards, self.process_rank, self.size)

    def without_negatives(self) -> I64:
        """(s, 2) of the shards of this process: users for whom there is no negative to draw, since they have every
        item, and what they have of what steps take parts of. They are in no batch."""
        found = np.zeros((len(self.shards.manifest["shards"]), 2), np.int64)
        if self.negatives:
            for number in self.mine:
                full = self._full(shard := self.shards.read(number))
                found[number] = full.sum(), self._in(shard) - self._in(shard.without(full)) if full.any() else 0
        return found

    def _read(self, number: int) -> Shard:
        shard = self.shards.read(number)
        full = self._full(shard)
        return shard.without(full) if full.any() else shard

    def _full(self, shard: Shard) -> NDArray[np.bool_]:
        """(u,) whether there is no negative to draw for a user."""
        if not self.negatives:
            return np.zeros(len(shard.users), bool)
        none: NDArray[np.bool_] = (1 if self.softmax else shard.positives.degrees) >= np.full(
            len(shard.users), self.alias.drawable
        )
        return none

    def _in(self, shard: Shard) -> int:
        """What a step takes its part of, in a shard that was read."""
        return len(shard.items)

    @property
    def at_once(self) -> int:
        """Steps of a group."""
        return max(_AT_ONCE // self.batch, 1)

    def steps(self) -> int:
        """In an epoch."""
        return sum(self._steps_of(group) for group in range(self.shards.groups))

    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from step `first` on."""
        for group in self.step_groups(number, first):
            yield from group.batches()

    def step_groups(self, number: int, first: int = 0) -> Iterator[StepGroup]:
        """The same, as many steps at once as are drawn together."""
        offsets, held = self._offsets(), self._held
        for group in np.random.default_rng((self.seed, number)).permutation(self.shards.groups).tolist():
            steps = self._steps_of(group)
            if first >= steps:
                first -= steps
                continue
            mine = self.shards.mine(group, self.process_rank, self.size)
            if [shard.number for shard in held] != mine:
                held[:] = [self._read(shard) for shard in mine]
            yield from self._group(number, group, held, offsets, steps, first)
            first = 0

    def _group(
        self, epoch: int, group: int, held: list[Shard], offsets: dict[int, int], steps: int, first: int
    ) -> Iterator[StepGroup]:
        sizes = [self._size(shard) for shard in self.shards.numbers(group)]
        orders = [order_of(len(shard.items), steps, (self.seed, epoch, shard.number)) for shard in held]
        keys = [self._key(epoch, shard) for shard in held]
        n_users = sum(int(self.shards.manifest["shards"][number]["users"]) for number in self.mine)
        known = [shard.entries for shard in held if shard.entries is not None]
        entries = None if self.shards.layout is None else SparseFeatures.joined(known)
        firsts = np.cumsum([0, *(len(shard.items) for shard in held)]).tolist()
        counts = self._counts([shard.items for shard in held])
        for begin in range(first, steps, self.at_once):
            wanted = range(begin, min(begin + self.at_once, steps))
            cuts = [cuts_of(len(order), steps, wanted) for order in orders]
            parts = [
                self._part(shard, order[cut[0] : cut[-1]], key, int(cut[0]), offsets[shard.number], example)
                for shard, order, key, cut, example in zip(held, orders, keys, cuts, firsts[:-1], strict=True)
            ]
            starts, columns = _by_step(parts, cuts)
            users, items, values, confidence = columns[:4]
            steps_of = [slice(a, b) for a, b in pairwise(starts.tolist())]
            false_negatives = [
                self._false_negatives(held, users[at], items[at, 0]) if self.in_batch else None for at in steps_of
            ]
            log_expected = [self._log_expected(items[at], counts) if self.softmax else None for at in steps_of]
            given = users, items, values, confidence, starts, n_users, self.shards.n_items
            totals = np.sum([np.diff(cuts_of(n, steps, wanted)) for n in sizes], axis=0).tolist()
            yield StepGroup(
                columns,
                starts,
                totals,
                false_negatives,
                log_expected,
                Steps.of(*given) if self.paired else None,
                entries,
            )

    def _part(
        self, shard: Shard, at: I64, key: int, begin: int, offset: int, first_example: int
    ) -> tuple[NDArray[Any], ...]:
        rows = shard.rows.take(at)
        degrees = shard.positives.degrees.take(rows)
        items = shard.items.take(at)[:, None]
        if self.negatives:
            items = np.concatenate((items, self._draw(shard, rows, items[:, 0], key, begin)), axis=1)
        known = () if shard.timestamps is None else (shard.timestamps.take(at), first_example + at)
        return rows + offset, items, shard.values.take(at), shard.confidence.take(at), degrees, *known

    def _key(self, epoch: int, shard: Shard) -> int:
        """Of the stream of negatives."""
        return int(np.random.default_rng((self.seed, epoch, shard.number, 1)).integers(2**63))

    def _draw(self, shard: Shard, rows: I64, items: I32, key: int, begin: int) -> I32:
        """Negatives of examples, whose users are `rows` of the shard; the first of them is number `begin`."""
        positives = shard.positives
        if self.softmax:  # a list for each example: of its own item
            n = len(rows)
            rows, positives = np.arange(n), Positives.of((np.arange(n + 1), items), n, self.shards.n_items)
        return draw_negatives(key, begin, rows, positives, self.alias, self.negatives)

    def _false_negatives(self, held: list[Shard], users: I64, items: I32) -> NDArray[np.bool_]:
        if self.softmax:
            same: NDArray[np.bool_] = items[:, None] == items
            return same
        offsets = self._offsets()
        firsts = [offsets[shard.number] for shard in held]
        parts = np.split(users, np.searchsorted(users, firsts[1:]))
        given = zip(held, firsts, parts, strict=True)
        return np.concatenate([is_positive(rows - first, items, shard.positives) for shard, first, rows in given])

    def _counts(self, items: list[I32]) -> I64 | None:
        """(m,) how often each is a positive of the group, where columns are drawn from these."""
        if not (self.softmax and self.in_batch):
            return None
        return np.bincount(np.concatenate([np.zeros(0, np.int32), *items]), minlength=self.shards.n_items)

    def _log_expected(self, items: I32, counts: I64 | None, own: I64 | int = 1) -> F64:
        """`Batch.log_expected` of items (b, 1 + n).

        counts  as of `_counts`
        own     (b,) columns of a batch that come with a row, whoever else is in it
        """
        found: F64
        if counts is None:  # from all but the positive
            chance = self.alias.log_probability[items]
            found = chance - np.log1p(-np.exp(chance[:, :1])) + np.log(max(self.negatives, 1))
            return found
        others = np.maximum(len(items) - own, 1) / np.maximum(counts.sum() - own, 1)
        found = np.log(counts[items[:, 0]]) + np.log(np.broadcast_to(others, len(items)))[:, None]
        return found

    @property
    def mine(self) -> list[int]:
        """Numbers of the shards of this process, as the user table has them."""
        return shards_of(self.shards, self.process_rank, self.size)

    def _offsets(self) -> dict[int, int]:
        """Where the rows of each shard's users begin in the user table."""
        counts = [int(self.shards.manifest["shards"][shard]["users"]) for shard in self.mine]
        starts = starts_of(np.array(counts, np.int64))
        return dict(zip(self.mine, starts.tolist(), strict=False))

    def _steps_of(self, group: int) -> int:
        return -(-sum(map(self._size, self.shards.numbers(group))) // self.batch)

    def _size(self, number: int) -> int:
        """What steps take parts of, in a shard of any process."""
        return self._rows(number) - (0 if self.left_out is None else int(self.left_out[number]))

    def _rows(self, number: int) -> int:
        return self.shards.rows(number)


def shards_of(shards: Shards, process_rank: int, size: int) -> list[int]:
    """Numbers of the shards that a process reads, of all groups."""
    return [shard for group in range(shards.groups) for shard in shards.mine(group, process_rank, size)]


def users_of(shards: Shards, process_rank: int, size: int) -> I64:
    """Ids of the users of a process, as the rows of its table of users."""
    mine = shards_of(shards, process_rank, size)
    return np.concatenate([np.zeros(0, np.int64), *(shards.read(number).users for number in mine)])


def order_of(n: int, steps: int, seed: tuple[int, ...]) -> I64:
    """The examples of a shard at random steps; those of a step, and so its users, ascend."""
    places = np.random.default_rng(seed).permutation(n)
    step = ((places + 1) * steps - 1) // max(n, 1)  # n step // steps <= place < n (step + 1) // steps
    return by_key(step.astype(np.int32), steps)[1]


def cuts_of(n: int, steps: int, wanted: range) -> I64:
    """Where the wanted ones of `steps` equal parts of n begin, and the last of them ends."""
    return n * np.arange(wanted.start, wanted.stop + 1) // steps


def _by_step(parts: list[tuple[NDArray[Any], ...]], cuts: list[I64]) -> tuple[I64, list[NDArray[Any]]]:
    """The columns of all shards, and where the rows of each step begin; `cuts` say so of each shard."""
    if len(parts) == 1:
        return cuts[0] - cuts[0][0], list(parts[0])
    step = np.concatenate([np.repeat(np.arange(len(cut) - 1), np.diff(cut)) for cut in cuts])
    starts, order = by_key(step.astype(np.int32), len(cuts[0]) - 1)
    return starts, [np.concatenate(each).take(order, axis=0) for each in zip(*parts, strict=True)]
