"""Which block every user, item and rating of an ALS fit belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparkrec.kernels.als.blocking import deal, hashed
from sparkrec.kernels.arrays import I32, I64
from sparkrec.kernels.csr import located
from sparkrec.kernels.ragged import starts_of

BUCKETS = 1 << 14
"""Ids are dealt out to blocks by buckets of this many; so are at most a thousandth as many blocks even."""

SPLIT = -1
"""The block of ids whose ratings are too many for one block: their systems are summed in pieces."""

ASSEMBLY_BYTES = 100
"""Most bytes that a rating takes in the memory of a task, while its block is put together or solved."""


@dataclass(frozen=True)
class SidePlan:
    """The blocks of the users, or of the items."""

    keys: I64
    """Key of each block."""
    table: I32
    """(BUCKETS,) block of each bucket."""
    split: I64
    """Ids of block SPLIT, ascending."""
    piece_start: I64
    """Pieces of split id i are [piece_start[i], piece_start[i + 1])."""
    piece_block: I32
    """Block of each piece."""

    def homes(self, ids: I64) -> I64:
        """Key of the block that solves each id; SPLIT for those that the driver solves."""
        home = self.keys[self.table[hashed(ids) % BUCKETS]]
        home[self.split_at(ids) >= 0] = SPLIT
        return home

    def split_at(self, ids: I64) -> I64:
        """Position in `split` of each id, -1 where it is not split."""
        at, is_split = located(ids, self.split)
        return np.where(is_split, at, -1)

    def blocks_of_ratings(self, dst: I64, src: I64) -> I32:
        """Position in `keys` of the block that holds each rating: the home of its dst id, or of a piece of it."""
        block = self.table[hashed(dst) % BUCKETS]
        at = self.split_at(dst)
        there = np.flatnonzero(at >= 0)
        at = at[there]
        piece = self.piece_start[at] + hashed(src[there]) % np.diff(self.piece_start)[at]
        block[there] = self.piece_block[piece]
        return block


def plan_side(counts: I64, popular: Mapping[int, int], keys: Sequence[int], most: float) -> SidePlan:
    """Deal the buckets and the pieces of popular ids out to blocks, evenly by number of ratings.

    counts   (BUCKETS,) ratings of each bucket
    popular  ratings of each id that has more than `most`: these are split into pieces of at most `most`
    keys     key of each block
    """
    split = np.array(sorted(popular), np.int64)
    load = counts.astype(np.float64)
    n_pieces = np.array([-(-popular[each] // max(int(most), 1)) for each in split.tolist()], np.int64)
    for each, bucket in zip(split.tolist(), (hashed(split) % BUCKETS).tolist(), strict=True):
        load[bucket] -= popular[each]
    pieces = np.repeat([popular[each] / n for each, n in zip(split.tolist(), n_pieces, strict=True)], n_pieces)
    dealt = deal(np.concatenate((load, pieces)), len(keys))
    start = starts_of(n_pieces)
    return SidePlan(np.array(keys, np.int64), dealt[:BUCKETS], split, start, dealt[BUCKETS:])


def block_count(n_ratings: int, n_src: float, rank: int, slots: int, task_bytes: float) -> int:
    """Fewest blocks, a multiple of the task slots, of which each fits in the memory of a task.

    n_src  rows of the other side: a block needs at most all of them, and at most one a rating
    """
    blocks = slots
    while blocks < n_ratings and task_bytes < block_memory(n_ratings / blocks, n_src, rank):
        blocks += max(slots, blocks // 8 // slots * slots)
    return blocks


def memory_of_task(executor_bytes: float, cores: int) -> float:
    """Bytes that a task may use: half of an executor's memory, shared among its cores."""
    return executor_bytes / 2 / max(cores, 1)


def block_memory(n_ratings: float, n_src: float, rank: int) -> float:
    """Bytes that a block of so many ratings takes: itself, and twice the src factors it needs."""
    return n_ratings * ASSEMBLY_BYTES + 2 * min(n_src, n_ratings) * rank * 4
