"""Negative items for training: drawn anew in each epoch, with replacement, never a positive of that user.

Draw number i is a hash of (key, i), not the next state of a generator: whoever draws it, and after whatever, gets the
same. `sampling` draws without replacement, for evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

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
    drawable: int
    """Items of a probability above 0."""

    @classmethod
    def of(cls, weights: F64) -> Alias:
        """Of (m,) weights, 0 or more, not all 0. Raises ValueError for others."""
        if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
            raise ValueError("weights: expected at least one above 0, none below, all finite")
        probability = weights / weights.sum()
        keep, other = _alias(frozen(probability * len(weights), np.float64, "weights"))
        with np.errstate(divide="ignore"):
            return cls(keep, other, np.log(probability), int(np.count_nonzero(weights)))


def popularity(counts: I64, power: float, unseen: bool = True) -> Alias:
    """(count + 1)^power: 0 is uniform, 1 as often as they occur; 3/4 is word2vec's (Mikolov et al. 2013).

    unseen  whether items without any count are drawn
    """
    weights = (counts.astype(np.float64) + 1.0) ** power
    return Alias.of(weights if unseen else np.where(counts > 0, weights, 0.0))


@dataclass(frozen=True)
class Positives:
    """The positives of each row, and a filter that tells of most other items that they are none (Bloom 1970)."""

    indptr: I64
    ids: I32
    """Ascending in each row."""
    filter: NDArray[np.uint64]
    """A power of two of bits, 16 or more a positive, with one hash: an item whose bit is not set is no positive."""
    degrees: I64
    """Positives of each row."""

    @classmethod
    def of(cls, lists: Lists, n_rows: int, n_items: int) -> Positives:
        """Of lists (indptr, int32 items). Raises ValueError where they do not ascend or are not in [0, n_items)."""
        indptr, ids = checked_lists(lists, n_rows, "positives")
        check_range(ids, n_items, "positives")
        bits = max(16 * len(ids), 64)
        words = np.zeros(1 << (bits - 1).bit_length() - 6, np.uint64)
        _fill(indptr, ids, words)
        return cls(indptr, ids, frozen(words, np.uint64, "filter"), np.diff(indptr))


def draw_negatives(key: int, first: int, rows: I64, positives: Positives, alias: Alias, n: int) -> I32:
    """(b, n) int32 items, none of them a positive of its row, drawn from `alias` and again while it is.

    key    of the stream, any integer of 64 bits
    first  number of the first row's draws in the stream: row b's are (first + b) n + 0 ... n - 1
    rows   (b,) int64 whose positives
    Raises ValueError where a row has every item.
    """
    rows = frozen(rows, np.int64, "rows")
    check_range(rows, len(positives.indptr) - 1, "rows")
    full = positives.degrees.take(rows) >= alias.drawable if n else np.zeros(0, bool)
    if full.any():
        raise ValueError(f"rows: row {rows[int(np.argmax(full))]} has every item, expected one left to draw")
    bits = np.uint64(key & 0xFFFFFFFFFFFFFFFF)
    given = positives.indptr, positives.ids, positives.filter, alias.keep, alias.other
    return _draw(bits, np.uint64(first), rows, *given, n)


def is_positive(rows: I64, items: I32, positives: Positives) -> np.ndarray:
    """(b, k) bool: whether items[k] is a positive of rows[b]."""
    given = frozen(rows, np.int64, "rows"), frozen(items, np.int32, "items")
    return _is_positive(*given, positives.indptr, positives.ids, positives.filter)


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
        keep[small[at]] = 1.0 if scaled[small[at]] > 0.0 else 0.0
        other[small[at]] = np.argmax(scaled)
    for at in range(n_large):
        keep[large[at]] = 1.0
    return keep, other


@njit(cache=True, nogil=True)
def _mixed(bits: np.uint64) -> np.uint64:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@njit(cache=True, nogil=True)
def _bit(row: Any, item: Any, words: NDArray[np.uint64]) -> tuple[Any, Any]:
    """Word and bit of a pair: the high bits of a product, as many as there are."""
    mixed = (np.uint64(row) << np.uint64(32) ^ np.uint64(item)) * GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(32))) * GOLDEN
    word = (mixed >> np.uint64(32)) * np.uint64(len(words)) >> np.uint64(32)
    return word, np.uint64(1) << (mixed & np.uint64(63))


@njit(cache=True, nogil=True)
def _fill(indptr: I64, ids: I32, words: NDArray[np.uint64]) -> None:
    for row in range(len(indptr) - 1):
        for at in range(indptr[row], indptr[row + 1]):
            word, bit = _bit(row, ids[at], words)
            words[word] |= bit


@njit(cache=True, nogil=True)
def _has(row: Any, item: Any, indptr: I64, ids: I32, words: NDArray[np.uint64]) -> bool:
    """Whether an item is a positive of a row."""
    word, bit = _bit(row, item, words)
    if not words[word] & bit:
        return False
    start = indptr[row]
    n = indptr[row + 1] - start
    if n <= 0:
        return False
    while n > 1:  # a step adds instead of branching: half of the branches would be predicted wrongly
        half = n >> 1
        start += half * (ids[start + half - 1] < item)
        n -= half
    return bool(ids[start] == item)


@njit(cache=True, nogil=True)
def _draw(
    key: np.uint64,
    first: np.uint64,
    rows: I64,
    indptr: I64,
    ids: I32,
    words: NDArray[np.uint64],
    keep: F64,
    other: I32,
    n: int,
) -> I32:
    m = np.uint64(len(keep))
    drawn = np.empty((len(rows), n), np.int32)
    stream = _mixed(key + GOLDEN)
    for b in range(len(rows)):
        for j in range(n):
            state = _mixed(stream + ((first + np.uint64(b)) * np.uint64(n) + np.uint64(j) + np.uint64(1)) * GOLDEN)
            while True:
                column = ((state >> np.uint64(32)) * m) >> np.uint64(32)  # Lemire's multiplication instead of modulo
                chance = np.float64(state & np.uint64(0xFFFFFFFF)) * 2.0**-32
                item = np.int64(column) if chance < keep[column] else np.int64(other[column])
                if not _has(rows[b], item, indptr, ids, words):
                    break
                state = _mixed(state + GOLDEN)
            drawn[b, j] = item
    return drawn


@njit(cache=True, nogil=True)
def _is_positive(rows: I64, items: I32, indptr: I64, ids: I32, words: NDArray[np.uint64]) -> np.ndarray:
    found = np.zeros((len(rows), len(items)), np.bool_)
    for b in range(len(rows)):
        for k in range(len(items)):
            found[b, k] = _has(rows[b], items[k], indptr, ids, words)
    return found
