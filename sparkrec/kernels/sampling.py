"""Negative items for evaluation and training: uniform, without replacement, and the same on every run.

Each draw is a hash of (seed, user id, number of the draw), not the next state of a generator. A user's
negatives depend on nothing else: not on the batch, the partition or the worker it is in.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sparkrec.kernels.arrays import I64, Lists, checked_lists, frozen

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 0xFFFFFFFFFFFFFFFF


def sample_negatives_reference(seed: int, user_ids: NDArray[Any], seen: Lists, catalogue: NDArray[Any], n: int) -> I64:
    """`sample_negatives` with a real shuffle of a real list a user, in Python integers."""
    negatives = np.full((len(user_ids), n), -1, np.int64)
    for row, user in enumerate(user_ids):
        left = np.setdiff1d(catalogue, seen[1][seen[0][row] : seen[0][row + 1]]).tolist()
        key = _mix_reference(_mix_reference(seed & _MASK) + (int(user) & _MASK))
        for draw in range(min(n, len(left))):
            other = draw + _mix_reference(key + (draw + 1) * _GOLDEN) % (len(left) - draw)
            left[draw], left[other] = left[other], left[draw]
            negatives[row, draw] = left[draw]
    return negatives


def sample_negatives(seed: int, user_ids: NDArray[Any], seen: Lists, catalogue: NDArray[Any], n: int) -> I64:
    """(n_users, n) int64 item ids a user has not seen, each set of n equally likely, in random order.

    seed       any integer that fits in 64 bits
    user_ids   (n_users,) int64
    seen       (indptr, item ids) a list a user, ids ascending; ids outside the catalogue do no harm
    catalogue  (m,) int64 item ids to draw from, ascending
    A user with fewer than n items left gets them all, then -1. The first n of a longer sample are the shorter
    sample. Fisher-Yates on the unseen items (Durstenfeld 1964) with splitmix64 (Steele et al. 2014) of seed,
    user and draw; reducing 64 bits modulo the items left favours none by more than m / 2**64. Raises
    ValueError for lists that are not strictly ascending.
    """
    user_ids = frozen(user_ids, np.int64, "user_ids")
    catalogue = frozen(catalogue, np.int64, "catalogue")
    if (catalogue[1:] <= catalogue[:-1]).any():
        raise ValueError("catalogue: expected strictly ascending item ids; sort them and drop repeats")
    indptr, ids = checked_lists(seen, len(user_ids), "seen", np.int64)
    return _sample(np.uint64(seed & _MASK), user_ids, indptr, ids, catalogue, n)


def _mix_reference(bits: int) -> int:
    bits &= _MASK
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB & _MASK
    return bits ^ (bits >> 31)


@njit(cache=True, nogil=True)
def _mix(bits: np.uint64) -> np.uint64:
    """The output function of splitmix64: every input bit moves every output bit."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@njit(cache=True, nogil=True)
def _sample(seed: np.uint64, user_ids: I64, indptr: I64, seen: I64, catalogue: I64, n: int) -> I64:
    negatives = np.full((len(user_ids), n), -1, np.int64)
    # The unseen items of a user are never listed. `order` shuffles their ranks, 0 to left - 1, and is put
    # back after each user. A rank becomes a place in the catalogue by stepping over the seen ones before it.
    order = np.arange(len(catalogue))
    touched = np.empty(n, np.int64)
    gaps = np.empty(len(catalogue), np.int64)
    for row in range(len(user_ids)):
        n_seen = 0
        for at in range(indptr[row], indptr[row + 1]):
            place = np.searchsorted(catalogue, seen[at])
            if place < len(catalogue) and catalogue[place] == seen[at]:
                gaps[n_seen] = place - n_seen  # unseen places before this seen one
                n_seen += 1
        left = len(catalogue) - n_seen
        key = _mix(_mix(seed) + np.uint64(user_ids[row]))
        draws = min(n, left)
        for draw in range(draws):
            bits = _mix(key + np.uint64(draw + 1) * np.uint64(_GOLDEN))
            other = draw + np.int64(bits % np.uint64(left - draw))
            order[draw], order[other] = order[other], order[draw]
            touched[draw] = other
            rank = order[draw]
            negatives[row, draw] = catalogue[rank + np.searchsorted(gaps[:n_seen], rank, side="right")]
        for draw in range(draws):
            order[draw] = draw
            order[touched[draw]] = touched[draw]
    return negatives
