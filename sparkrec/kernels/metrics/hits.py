"""Where relevant items stand in the lists of a batch of users."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from sparkrec.kernels.arrays import F64, I64, Lists, check_indptr, checked_lists, frozen
from sparkrec.kernels.ragged import rows_of


class Hits(NamedTuple):
    """Relevant items in lists, user after user, best first, and what the users have beside them.

    Of the lists [7, 1, 9] and [] and the relevant items {4, 7, 9} and {1}, of gain 1:

        user [0, 0]   place [1, 3]   nth [1, 2]   gain [1, 1]   n_relevant [3, 1]   length [3, 0]
    """

    user: I64
    """(h,) which user's."""
    place: I64
    """(h,) where in the list, from 1."""
    nth: I64
    """(h,) hits of that user up to this one."""
    gain: F64
    """(h,)"""
    n_relevant: I64
    """(u,) relevant items, in the list or not."""
    length: I64
    """(u,) of the list."""
    ideal: tuple[I64, F64]
    """Gains of the relevant items of each user, largest first: where each user's begin (u + 1,), and all of them."""


def find_hits(ranked: Lists, relevant: Lists, gains: F64 | None = None) -> Hits:
    """Hits in lists.

    ranked    (indptr, item ids), best first
    relevant  (indptr, item ids) of the same users, ids ascending
    gains     (nnz,) of the relevant items, above 0; None: 1
    Raises ValueError where a list has an item twice (it would count twice), where relevant ids do not ascend, and for
    a gain that is not above 0 or infinite.
    """
    start, items = (frozen(each, np.int64, "ranked") for each in ranked)
    check_indptr(start, len(items), "ranked")
    indptr, ids = checked_lists(relevant, len(start) - 1, "relevant", np.int64)
    gains = np.ones(len(ids)) if gains is None else gains
    if len(gains) != len(ids) or not (np.isfinite(gains).all() and (gains > 0).all()):
        raise ValueError("gains: expected a finite number above 0 for each relevant item")
    place, at, repeated = locate_hits(start, items, indptr, ids)
    if repeated >= 0:
        raise ValueError(f"ranked: row {repeated} has item {items[_repeated(start, items, repeated)]} more than once")
    there = np.flatnonzero(place)
    user = np.searchsorted(start, there, side="right") - 1
    nth = np.arange(1, len(there) + 1) - np.searchsorted(user, user)
    users = rows_of(indptr)
    largest_first = np.lexsort((-gains, users)) if (gains != gains[:1]).any() else slice(None)
    n_relevant, length = np.diff(indptr), np.diff(start)
    return Hits(user, place[there], nth, gains[at[there]], n_relevant, length, (indptr, gains[largest_first]))


def _repeated(start: I64, items: I64, row: int) -> int:
    own = items[start[row] : start[row + 1]]
    return int(start[row] + next(at for at in range(len(own)) if own[at] in own[:at]))


@njit(cache=True, nogil=True)
def locate_hits(start: I64, items: I64, indptr: I64, ids: I64) -> tuple[I64, I64, int]:
    """Of each place in the lists, its number from 1 if a relevant item stands there, else 0, and which one; and the
    first row that has one twice."""
    place, at = np.zeros(len(items), np.int64), np.zeros(len(items), np.int64)
    repeated = -1
    for u in range(len(start) - 1):
        first, stop = indptr[u], indptr[u + 1]
        found = np.zeros(stop - first, np.bool_)
        for r in range(start[u], start[u + 1]):
            where = first + np.searchsorted(ids[first:stop], items[r])
            if where < stop and ids[where] == items[r]:
                if found[where - first] and repeated < 0:
                    repeated = u
                found[where - first] = True
                place[r], at[r] = r - start[u] + 1, where
    return place, at, repeated
