"""Negative items for training: drawn anew in each epoch, with replacement, never a positive of that user.

Draw number i is a hash of (key, i), not the next state of a generator: whoever draws it, and after whatever, gets the
same. `sampling` draws without replacement, for evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from sparkrec.kernels.arrays import F64, I32, I64, Lists, check_range, checked_lists, frozen
from sparkrec.kernels.random import GOLDEN


@dataclass(frozen=True)
class Alias:
    """Draws from a distribution over items in constant time (Walker 1977; Vose 1991)."""

    keep: F64
    """(m,) chance that a draw of the column stays there."""
    other: I32
    """(m,) where it goes instead."""
    log_probability: F64
    """(m,) of each item."""

    @classmethod
    def of(cls, weights: F64) -> Alias:
        """Of (m,) weights > 0. Raises ValueError for others."""
        if len(weights) == 0 or not (np.isfinite(weights).all() and (weights > 0).all()):
            raise ValueError("weights: expected at least one, all positive and finite")
        probability = weights / weights.sum()
        keep, other = _alias(frozen(probability * len(weights), np.float64, "weights"))
        return cls(keep, other, np.log(probability))


def popularity(counts: I64, power: float) -> Alias:
    """(count + 1)^power: 0 is uniform, 1 as often as they occur; 3/4 is word2vec's (Mikolov et al. 2013)."""
    return Alias.of((counts.astype(np.float64) + 1.0) ** power)


def draw_negatives(key: int, first: int, rows: I64, positives: Lists, alias: Alias, n: int) -> I32:
    """(b, n) int32 items, none of them a positive of its row, drawn from `alias` and again while it is.

    key        of the stream, any integer of 64 bits
    first      number of the first row's draws in the stream: row b's are (first + b) n + 0 ... n - 1
    rows       (b,) int64 whose positives: rows of `positives`
    positives  (indptr, int32 items), ascending in each row
    Raises ValueError where a row has every item.
    """
    indptr, ids = frozen(positives[0], np.int64, "indptr"), frozen(positives[1], np.int32, "positives")
    rows = frozen(rows, np.int64, "rows")
    check_range(rows, len(indptr) - 1, "rows")
    full = np.diff(indptr)[rows] >= len(alias.keep) if n else np.zeros(0, bool)
    if full.any():
        raise ValueError(f"rows: row {rows[int(np.argmax(full))]} has every item, expected one left to draw")
    bits = np.uint64(key & 0xFFFFFFFFFFFFFFFF)
    return _draw(bits, np.uint64(first), rows, indptr, ids, alias.keep, alias.other, n)


def check_positives(positives: Lists, n_rows: int, n_items: int) -> Lists:
    """Positives as `draw_negatives` reads them. Raises ValueError."""
    checked = checked_lists(positives, n_rows, "positives")
    check_range(checked[1], n_items, "positives")
    return checked


def is_positive(rows: I64, items: I32, positives: Lists) -> np.ndarray:
    """(b, k) bool: whether items[k] is a positive of rows[b]."""
    indptr, ids = frozen(positives[0], np.int64, "indptr"), frozen(positives[1], np.int32, "positives")
    return _is_positive(frozen(rows, np.int64, "rows"), frozen(items, np.int32, "items"), indptr, ids)


@njit(cache=True, nogil=True)
def _alias(scaled: F64) -> tuple[F64, I32]:
    m = len(scaled)
    keep, other = scaled.copy(), np.arange(m).astype(np.int32)
    small, large = np.empty(m, np.int64), np.empty(m, np.int64)
    n_small = n_large = 0
    for i in range(m):
        if keep[i] < 1.0:
            small[n_small] = i
            n_small += 1
        else:
            large[n_large] = i
            n_large += 1
    while n_small and n_large:
        n_small -= 1
        low, high = small[n_small], large[n_large - 1]
        other[low] = high
        keep[high] -= 1.0 - keep[low]
        if keep[high] < 1.0:
            n_large -= 1
            small[n_small] = high
            n_small += 1
    for at in range(n_small):  # rounding left them
        keep[small[at]] = 1.0
    for at in range(n_large):
        keep[large[at]] = 1.0
    return keep, other


@njit(cache=True, nogil=True)
def _mixed(bits: np.uint64) -> np.uint64:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@njit(cache=True, nogil=True)
def _among(ids: I32, start: int, stop: int, item: Any) -> bool:
    """Whether ids[start:stop], ascending, has the item."""
    at, end = start, stop
    while at < end:
        middle = (at + end) >> 1
        if ids[middle] < item:
            at = middle + 1
        else:
            end = middle
    return at < stop and ids[at] == item


@njit(cache=True, nogil=True)
def _draw(key: np.uint64, first: np.uint64, rows: I64, indptr: I64, ids: I32, keep: F64, other: I32, n: int) -> I32:
    m = np.uint64(len(keep))
    drawn = np.empty((len(rows), n), np.int32)
    stream = _mixed(key + GOLDEN)
    for b in range(len(rows)):
        start, stop = indptr[rows[b]], indptr[rows[b] + 1]
        for j in range(n):
            state = _mixed(stream + ((first + np.uint64(b)) * np.uint64(n) + np.uint64(j) + np.uint64(1)) * GOLDEN)
            while True:
                column = ((state >> np.uint64(32)) * m) >> np.uint64(32)  # Lemire's multiplication instead of modulo
                chance = np.float64(state & np.uint64(0xFFFFFFFF)) * 2.0**-32
                item = np.int64(column) if chance < keep[column] else np.int64(other[column])
                if not _among(ids, start, stop, item):
                    break
                state = _mixed(state + GOLDEN)
            drawn[b, j] = item
    return drawn


@njit(cache=True, nogil=True)
def _is_positive(rows: I64, items: I32, indptr: I64, ids: I32) -> np.ndarray:
    found = np.zeros((len(rows), len(items)), np.bool_)
    for b in range(len(rows)):
        for k in range(len(items)):
            found[b, k] = _among(ids, indptr[rows[b]], indptr[rows[b] + 1], items[k])
    return found
