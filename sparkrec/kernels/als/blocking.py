"""Dividing ids into blocks of about equal load.

Ids are hashed into a fixed number of buckets; the buckets, and the pieces of ids too popular for one block, are dealt
out to blocks by load. Where an id goes depends on the id and on a small table alone: no join looks it up.
"""

from __future__ import annotations

import heapq

import numpy as np
from numba import njit

from sparkrec.kernels.arrays import F64, I32, I64, frozen
from sparkrec.kernels.csr import located
from sparkrec.kernels.random import GOLDEN, mix64

REGISTERS = 4096
"""Of the estimate of distinct ids, whose standard error is 1.04 / sqrt(REGISTERS) = 1.6%."""


def hashed(ids: I64) -> I64:
    """(n,) int64 ids as (n,) non-negative int64, evenly spread."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        bits = mix64(ids.astype(np.int64, copy=False).view(np.uint64) + GOLDEN)
    return (bits >> np.uint64(1)).view(np.int64)


def tally(hashes: I64, n_buckets: int) -> tuple[I64, I32]:
    """How many hashes fall into each bucket (n_buckets,) int64, and the registers that `distinct_count` reads.

    Bucket counts of disjoint parts of the data add up; of registers the maximum counts.
    """
    counts, registers = np.zeros(n_buckets, np.int64), np.zeros(REGISTERS, np.int32)
    _tally(frozen(hashes, np.int64, "hashes"), counts, registers)
    return counts, registers


def distinct_count(registers: I32) -> float:
    """About how many different hashes the registers saw (HyperLogLog; Flajolet et al. 2007)."""
    estimate = 0.7213 / (1 + 1.079 / REGISTERS) * REGISTERS**2 / np.sum(2.0 ** -registers.astype(np.float64))
    empty = int((registers == 0).sum())
    if estimate <= 2.5 * REGISTERS and empty:
        return float(REGISTERS * np.log(REGISTERS / empty))
    return float(estimate)


def deal(loads: F64 | I64, n_blocks: int) -> I32:
    """Block of each load, (n,) int32: the largest first, each to the block with least (LPT; Graham 1969).

    The fullest block has at most 4/3 of the best possible maximum. Equal loads go in their order.
    """
    blocks = [(0.0, block) for block in range(n_blocks)]
    dealt = np.empty(len(loads), np.int32)
    for at in np.argsort(-np.asarray(loads), kind="stable"):
        load, block = heapq.heappop(blocks)
        dealt[at] = block
        heapq.heappush(blocks, (load + float(loads[at]), block))
    return dealt


def numbered(ids: I64) -> tuple[I64, I32]:
    """The different ids, ascending, and the position of each of `ids` among them: as numpy.unique, a sixth of its time.

    Raises ValueError for more than 2^31 - 1 different ids.
    """
    ids = frozen(ids, np.int64, "ids")
    places, slots, n = _first_seen(ids)
    if n < 0:
        raise ValueError("ids: found more than 2,147,483,647 different ones, expected fewer: use more blocks")
    distinct = slots[:n]
    order = np.argsort(distinct)
    rank = np.empty(n, np.int32)
    rank[order] = np.arange(n, dtype=np.int32)
    _renumber(places, rank)
    return distinct[order], places


def positions(ids: I64, distinct: I64) -> I64:
    """Where each of `ids` is in `distinct`, which ascends. Raises ValueError naming the first that is not there."""
    found, there = located(ids, distinct)
    if not there.all():
        raise ValueError(f"id {ids[int(np.argmin(there))]} is not in the block")
    return found


@njit(cache=True, nogil=True)
def _tally(hashes: I64, counts: I64, registers: I32) -> None:
    n_buckets = len(counts)
    for h in hashes:
        counts[h % n_buckets] += 1
        rest = h // REGISTERS
        # Leading zeros among the 51 bits that are left, and one.
        zeros = 1
        bit = np.int64(1) << 50
        while bit > rest and bit > 0:
            zeros += 1
            bit >>= 1
        at = h % REGISTERS
        if zeros > registers[at]:
            registers[at] = zeros


@njit(cache=True, nogil=True)
def _first_seen(ids: I64) -> tuple[I32, I64, int]:
    """Number of each id by first appearance, the ids by that number, and how many there are."""
    capacity = 1 << 12
    keys, numbers = np.empty(capacity, np.int64), np.full(capacity, -1, np.int32)
    places = np.empty(len(ids), np.int32)
    seen = np.empty(capacity, np.int64)
    n = 0
    for e in range(len(ids)):
        if 2 * n >= capacity:
            if capacity >= 1 << 31:
                return places, seen, -1
            capacity *= 2
            keys, numbers = np.empty(capacity, np.int64), np.full(capacity, -1, np.int32)
            wider = np.empty(capacity, np.int64)
            wider[:n] = seen[:n]
            seen = wider
            for number in range(n):
                slot = _slot(seen[number], keys, numbers)
                keys[slot], numbers[slot] = seen[number], number
        slot = _slot(ids[e], keys, numbers)
        if numbers[slot] < 0:
            keys[slot], numbers[slot] = ids[e], n
            seen[n] = ids[e]
            n += 1
        places[e] = numbers[slot]
    return places, seen, n


@njit(cache=True, nogil=True)
def _slot(key: np.int64, keys: I64, numbers: I32) -> np.int64:
    """Where `key` is in the table, or belongs: linear probing from a multiplicative hash (Knuth)."""
    mask = len(keys) - 1
    slot = (key * np.int64(-7046029254386353131) >> np.int64(20)) & mask
    while numbers[slot] >= 0 and keys[slot] != key:
        slot = (slot + 1) & mask
    return slot


@njit(cache=True, nogil=True)
def _renumber(places: I32, rank: I32) -> None:
    for e in range(len(places)):
        places[e] = rank[places[e]]
