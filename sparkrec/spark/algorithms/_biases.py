"""The ridge regression of ratings on who gave them and what they are of, by turns over blocks of users.

The ratings of a user are in one block, made once. A sweep is one pass over the blocks: each solves for its users with
the items as they are and adds up what that leaves of its items, which is all that is moved. The biases of the items are
on the driver, 16 bytes each with their ids, and those of the users are nowhere until the end: a pass makes them anew.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sparkrec.kernels.als.blocking import numbered
from sparkrec.kernels.arrays import F64, I64
from sparkrec.kernels.csr import located
from sparkrec.kernels.ragged import rows_of, starts_of
from sparkrec.spark.arrow.blocks import binary
from sparkrec.spark.arrow.entries import CutEntries, by_partition, entries_of, partition_ranges
from sparkrec.spark.arrow.packed_rows import ArrowRow, each_row, floats, integers, one_row, schema_of
from sparkrec.spark.data.matrix_rows import partitions_of
from sparkrec.spark.platform.partitions import partition_keys
from sparkrec.spark.runner import Rows

log = logging.getLogger(__name__)

TOLERANCE = 1e-6
"""Sweeps end when none moves an item's bias by more than this many standard deviations of the values."""
_BLOCK = schema_of(
    block=pa.int64(), n=pa.int64(), users=pa.binary(), start=pa.binary(), items=pa.binary(), at=pa.binary(),
    value=pa.binary(),
)  # fmt: skip
_SPREAD = schema_of(block=pa.int64(), n=pa.int64(), mean=pa.float64(), squares=pa.float64())
_LEFT = schema_of(
    partition=pa.int64(), block=pa.int64(), n=pa.int64(), ids=pa.binary(), left=pa.binary(), rows=pa.binary()
)
_BIAS = schema_of(user=pa.int64(), bias=pa.float64())
_USERS = -1
"""Partition of what is told of a block's users, where others have items."""


class Biases(NamedTuple):
    """Of a side, by ascending ids."""

    ids: I64
    bias: F64

    def table(self, key: str) -> pa.Table:
        """(key, bias)."""
        return pa.table({key: pa.array(self.ids, pa.int64()), "bias": self.bias})


@dataclass(frozen=True)
class _Block:
    """Ratings of some users, in the order of users, items and values."""

    key: int
    users: I64
    row: I64
    """(n,) position in `users` of each rating."""
    items: I64
    at: I64
    """(n,) position in `items` of each."""
    value: F64

    @classmethod
    def of(cls, packed: ArrowRow) -> _Block:
        start = packed.array("start", np.int64)
        return cls(
            packed.key("block"),
            packed.array("users", np.int64),
            rows_of(start),
            packed.array("items", np.int64),
            packed.integers("at", packed.n).astype(np.int64),
            packed.floats("value", packed.n).astype(np.float64),
        )

    def solved(self, level: F64, regularization: float) -> F64:
        """The bias of each user, where items are worth `level` each."""
        left = np.bincount(self.row, self.value - level[self.at], len(self.users))
        solved: F64 = left / (np.bincount(self.row, minlength=len(self.users)) + regularization)
        return solved


@dataclass(frozen=True)
class GatherRatings:
    """Makes a block of all pieces of a partition."""

    schema: pa.Schema = _BLOCK

    def __call__(self, group: pa.Table) -> pa.Table:
        row, column, value = entries_of(group)
        users, code = numbered(row)
        items, place = numbered(column)
        order = np.lexsort((value, place, code))  # one order, whatever that of the pieces: sums depend on it
        block = one_row(
            _BLOCK,
            block=group["partition"].slice(0, 1).combine_chunks(),
            n=pa.array([len(value)]),
            users=binary(users),
            start=binary(starts_of(np.bincount(code, minlength=len(users)))),
            items=binary(items),
            at=integers(place[order]),
            value=floats(value[order].astype(np.float32)),
        )
        return pa.Table.from_batches([block])


@dataclass(frozen=True)
class Spread:
    """How many values a block has, their mean, and the squares of what they are from it, added up."""

    schema: pa.Schema = _SPREAD

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for packed in each_row(batches):
            value = packed.floats("value", packed.n).astype(np.float64)
            mean = value.mean()
            told = packed.key("block"), len(value), mean, float(((value - mean) ** 2).sum())
            yield pa.RecordBatch.from_arrays([pa.array([each]) for each in told], schema=self.schema)


@dataclass(frozen=True)
class LeftOfItems:
    """What the users of a block leave of its items: in pieces, one for each partition of items, and one of the users.

    mean            of all values
    items           with their biases; None: there are none yet, of items or users
    regularization  of users
    keys            (n,) of the partitions
    """

    mean: float
    items: Biases | None
    regularization: float
    keys: I64
    schema: pa.Schema = _LEFT

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for packed in each_row(batches):
            block = _Block.of(packed)
            users = np.zeros(len(block.users))
            if self.items is not None:
                users = block.solved(_level(block, self.mean, self.items), self.regularization)
            left = np.bincount(block.at, block.value - self.mean - users[block.row], len(block.items)).astype(
                np.float64, copy=False
            )
            rows = np.bincount(block.at, minlength=len(block.items))
            yield self._piece(_USERS, block, np.zeros(1, np.int64), np.array([users.sum()]), np.array([len(users)]))
            start, order = by_partition(block.items, len(self.keys))
            for key, first, stop in partition_ranges(self.keys, start):
                some = order[first:stop]
                yield self._piece(key, block, block.items[some], left[some], rows[some])

    def _piece(self, key: int, block: _Block, ids: I64, left: F64, rows: I64) -> pa.RecordBatch:
        return one_row(
            _LEFT,
            partition=pa.array([key]),
            block=pa.array([block.key]),
            n=pa.array([len(ids)]),
            ids=binary(ids),
            left=binary(left),
            rows=binary(rows),
        )


@dataclass(frozen=True)
class AddUp:
    """Adds up the pieces of a partition, in the order of their blocks."""

    schema: pa.Schema = _LEFT

    def __call__(self, group: pa.Table) -> pa.Table:
        pieces = sorted(each_row(group.to_batches()), key=lambda piece: piece.key("block"))
        ids, code = numbered(np.concatenate([piece.array("ids", np.int64) for piece in pieces]))
        left = np.bincount(code, np.concatenate([piece.array("left", np.float64) for piece in pieces]))
        rows = np.bincount(code, np.concatenate([piece.array("rows", np.int64) for piece in pieces]))
        told = {name: group[name].slice(0, 1).combine_chunks() for name in ("partition", "block")}
        arrays = {"ids": binary(ids), "left": binary(left), "rows": binary(rows.astype(np.int64))}
        return pa.Table.from_batches([one_row(_LEFT, **told, n=pa.array([len(ids)]), **arrays)])


@dataclass(frozen=True)
class SolveUsers:
    """(user, bias) of the users of a block.

    mean, items     as of `LeftOfItems`; an item that is not there has no bias
    shift           taken from each bias
    """

    mean: float
    items: Biases
    regularization: float
    shift: float = 0.0
    schema: pa.Schema = _BIAS

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for packed in each_row(batches):
            block = _Block.of(packed)
            bias = block.solved(_level(block, self.mean, self.items), self.regularization) - self.shift
            yield pa.RecordBatch.from_arrays([pa.array(block.users), pa.array(bias)], schema=_BIAS)


def _level(block: _Block, mean: float, items: Biases) -> F64:
    """What the items of a block are worth."""
    at, known = located(block.items, items.ids)
    level = np.full(len(block.items), mean)
    level[known] += items.bias[at[known]]
    return level


def blocks_of(ratings: Rows) -> Rows:
    """Ratings (user, item, value) in blocks of users."""
    partitions = partitions_of(ratings)
    pieces = ratings.select("value", row="user", column="item").map_rows(
        CutEntries(np.array(partition_keys(partitions)))
    )
    return pieces.map_groups("partition", GatherRatings(), partitions)


def spread_of(blocks: Rows) -> tuple[float | None, float]:
    """Mean of all values, None if there is none, and their standard deviation (Chan, Golub and LeVeque 1983)."""
    found = sorted(blocks.map_rows(Spread()).table().to_pylist(), key=lambda each: each["block"])
    n, mean, squares = 0, 0.0, 0.0
    for each in found:
        apart, total = each["mean"] - mean, n + each["n"]
        squares += each["squares"] + apart**2 * n * each["n"] / total
        mean += apart * each["n"] / total
        n = total
    return (mean, (squares / n) ** 0.5) if n else (None, 0.0)


def solve(
    blocks: Rows, mean: float, spread: float, penalties: tuple[float, float], iterations: int
) -> tuple[Rows, Biases]:
    """Biases (user, bias) of the users, and those of the items.

    They minimise sum (value - mean - b_u - b_i)^2 + penalty sum b_u^2 + penalty sum b_i^2, by turns in closed form: b_i
    = sum_u (value - mean - b_u) / (n_i + penalty), and users likewise. Between turns what all users have in common is
    moved to all items as far as the penalties gain by it: no prediction depends on that, so turns alone would find it
    last.

    penalties  of users and of items
    """
    keys = np.array(partition_keys(blocks.slots))
    of_users, of_items = penalties

    def left_of_items(items: Biases | None) -> tuple[Biases, I64, float, int]:
        """What is left of each item, its ratings, the biases of users added up, and the number of users."""
        task = LeftOfItems(mean, items, of_users, keys)
        rows = [*each_row(blocks.map_rows(task).map_groups("partition", AddUp()).table().to_batches())]
        parts = sorted((row for row in rows if row.key("partition") != _USERS), key=lambda row: row.key("partition"))
        (users,) = (row for row in rows if row.key("partition") == _USERS)
        ids, left, counts = (
            np.concatenate([part.array(name, kind) for part in parts])
            for name, kind in (("ids", np.int64), ("left", np.float64), ("rows", np.int64))
        )
        order = np.argsort(ids)
        told = float(users.array("left", np.float64)[0]), int(users.array("rows", np.int64)[0])
        return Biases(ids[order], left[order]), counts[order], *told

    left, counts, _, _ = left_of_items(None)
    bias, shift = np.zeros(len(counts)), 0.0
    for sweep in range(iterations):
        items = Biases(left.ids, (left.bias + counts * shift) / (counts + of_items))
        left, _, total, n_users = left_of_items(items)
        weight = of_users * n_users + of_items * len(items.ids)
        shift = (of_users * total - of_items * float(items.bias.sum())) / weight if weight else 0.0
        moved = float(np.abs(items.bias + shift - bias).max())
        bias = items.bias + shift
        log.info("bias: sweep %s moved an item by %.2g standard deviations", sweep + 1, moved / spread)
        if moved < TOLERANCE * spread:
            break
    users = blocks.map_rows(SolveUsers(mean, items, of_users, shift)).computed()
    return users, Biases(items.ids, bias)
