"""The k best of a stream of scored ids: best is the higher score and, among equals, the lower id.

A heap with its worst entry on top, in two arrays of length k that the caller owns. Places that nothing has taken yet
hold -inf and the id -1: any score displaces them.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sparkrec.kernels.arrays import F32, I32, Real


@njit(cache=True, nogil=True)
def offer(scores: NDArray[Any], ids: NDArray[Any], score: Real, candidate: int) -> None:
    """Keep (score, candidate) if it is among the best."""
    if _worse(scores[0], ids[0], score, candidate):
        _sink(scores, ids, len(scores), score, candidate)


@njit(cache=True, nogil=True)
def offer_row(scores: F32, ids: I32, row: F32, first: int, exclude: I32) -> None:
    """Offer the scores of ids [first, first + len(row)), all above those that came before.

    NaN, -inf and the ids in `exclude`, ascending, are passed over.
    """
    next_excluded = -1
    for begin in range(0, len(row), 128):
        # A later id that only equals the bar loses; NaN never passes.
        bar = scores[0]
        # Most stretches hold nothing. A slice and a bool are what the compiler turns into vector comparisons.
        stretch = row[begin : begin + 128]
        passes = False
        for c in range(len(stretch)):
            passes |= stretch[c] > bar
        if not passes:
            continue
        if next_excluded < 0:
            next_excluded = int(np.searchsorted(exclude, first))
        for c in range(len(stretch)):
            if not stretch[c] > bar:
                continue
            candidate = first + begin + c
            while next_excluded < len(exclude) and exclude[next_excluded] < candidate:
                next_excluded += 1
            if next_excluded < len(exclude) and exclude[next_excluded] == candidate:
                continue
            _sink(scores, ids, len(scores), stretch[c], candidate)
            bar = scores[0]


@njit(cache=True, nogil=True)
def sort_best_first(scores: NDArray[Any], ids: NDArray[Any]) -> None:
    """Turn the heap into a list, best first."""
    for last in range(len(scores) - 1, 0, -1):
        score, candidate = scores[last], ids[last]
        scores[last], ids[last] = scores[0], ids[0]
        _sink(scores, ids, last, score, candidate)


@njit(cache=True, nogil=True)
def _worse(score: Real, candidate: int, other_score: Real, other: int) -> bool:
    if score == other_score:
        return candidate > other
    return bool(score < other_score)


@njit(cache=True, nogil=True)
def _sink(scores: NDArray[Any], ids: NDArray[Any], size: int, score: Real, candidate: int) -> None:
    """Replace the top of the heap of `size` entries by (score, candidate)."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and _worse(scores[child + 1], ids[child + 1], scores[child], ids[child]):
            child += 1
        if not _worse(scores[child], ids[child], score, candidate):
            break
        scores[at], ids[at] = scores[child], ids[child]
        at = child
    scores[at], ids[at] = score, candidate


def empty_places(n_rows: int, k: int, dtype: type[np.generic]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(n_rows, k) ids all -1 and float32 scores all -inf: lists of k with nothing in them yet."""
    return np.full((n_rows, k), -1, dtype), np.full((n_rows, k), -np.inf, np.float32)
