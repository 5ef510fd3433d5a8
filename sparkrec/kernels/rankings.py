"""Rows of many users, in any order, to a list of each."""

from __future__ import annotations

import numpy as np
from numba import njit

from sparkrec.kernels.arrays import F64, I32, I64
from sparkrec.kernels.csr import by_key
from sparkrec.kernels.ragged import starts_of


def numbered(ids: I64) -> tuple[I64, I32]:
    """The different ids in the order in which they first come (u,), and which of them each id is (n,)."""
    found, number = _numbered(ids, 64 - max(int(2 * len(ids)).bit_length(), 4))
    return found, number


def places(start: I64) -> I64:
    """Of each entry in its list, from 1."""
    return np.arange(1, start[-1] + 1) - np.repeat(start[:-1], np.diff(start))


def by_place(user: I32, users: int, place: I64, item: I64) -> tuple[I64, I64, int]:
    """The items of each user by place (indptr, items), and how many rows are not at one of the places 1, 2, ... of
    their user, or at one that is taken."""
    start = starts_of(np.bincount(user, minlength=users))
    items, wrong = _by_place(start, user, place, item)
    return start, items, wrong


def by_score(user: I32, users: int, score: F64, tie: F64, item: I64) -> tuple[I64, I64, F64]:
    """The items and scores of each user (indptr, items, scores), best first; of equal ones that of the lower `tie`."""
    start, order = by_key(user, users)
    order = _by_score(start, order, score, tie)
    return start, item[order], score[order]


def by_item(user: I32, users: int, item: I64, gain: F64) -> tuple[I64, I64, F64]:
    """The items of each user, ascending, and the gain of each (indptr, items, gains): the greatest, where an item comes
    more than once."""
    start, order = by_key(user, users)
    return _by_item(start, item[order], gain[order])


@njit(cache=True, nogil=True)
def first_repeat(start: I64, items: I64) -> int:
    """The first of the lists (indptr, item ids) that has an item more than once; -1: none has."""
    longest = 0
    for u in range(len(start) - 1):
        longest = max(longest, start[u + 1] - start[u])
    bits = 4
    while 1 << bits < 2 * longest:
        bits += 1
    held, whose = np.zeros(1 << bits, np.int64), np.full(1 << bits, -1, np.int64)
    for u in range(len(start) - 1):
        for r in range(start[u], start[u + 1]):
            at = _slot(items[r], 64 - bits)
            while whose[at] == u:
                if held[at] == items[r]:
                    return u
                at = (at + 1) & ((1 << bits) - 1)
            held[at], whose[at] = items[r], u
    return -1


@njit(cache=True, nogil=True)
def _slot(item: int, shift: int) -> np.int64:
    """Of a table of 2^(64 - shift) (Knuth's multiplicative hashing)."""
    return np.int64((np.uint64(item) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(shift))


@njit(cache=True, nogil=True)
def _numbered(ids: I64, shift: int) -> tuple[I64, I32]:
    last = (1 << (64 - shift)) - 1
    code = np.full(last + 1, -1, np.int32)
    found, number = np.empty(len(ids), np.int64), np.empty(len(ids), np.int32)
    n = 0
    for row in range(len(ids)):
        at = _slot(ids[row], shift)
        while code[at] >= 0 and found[code[at]] != ids[row]:
            at = (at + 1) & last
        if code[at] < 0:
            code[at], found[n] = n, ids[row]
            n += 1
        number[row] = code[at]
    return found[:n].copy(), number


@njit(cache=True, nogil=True)
def _by_place(start: I64, user: I32, place: I64, item: I64) -> tuple[I64, int]:
    found, taken = np.zeros(len(item), np.int64), np.zeros(len(item), np.bool_)
    wrong = 0
    for row in range(len(item)):
        first, stop = start[user[row]], start[user[row] + 1]
        at = first + place[row] - 1
        if at < first or at >= stop or taken[at]:
            wrong += 1
            continue
        found[at], taken[at] = item[row], True
    return found, wrong


@njit(cache=True, nogil=True)
def _by_score(start: I64, order: I64, score: F64, tie: F64) -> I64:
    found = np.empty(len(order), np.int64)
    for u in range(len(start) - 1):
        own = order[start[u] : start[u + 1]]
        own = own[np.argsort(-score[own])]
        first = 0
        for at in range(1, len(own) + 1):
            if at == len(own) or score[own[at]] != score[own[first]]:
                if at - first > 1:
                    own[first:at] = own[first:at][np.argsort(tie[own[first:at]])]
                first = at
        found[start[u] : start[u + 1]] = own
    return found


@njit(cache=True, nogil=True)
def _by_item(start: I64, item: I64, gain: F64) -> tuple[I64, I64, F64]:
    """Rows of each user lie together."""
    indptr = np.zeros(len(start), np.int64)
    items, gains = np.empty(len(item), np.int64), np.empty(len(item), np.float64)
    n = 0
    for u in range(len(start) - 1):
        own = start[u] + np.argsort(item[start[u] : start[u + 1]])
        for row in own:
            if n > indptr[u] and items[n - 1] == item[row]:
                gains[n - 1] = max(gains[n - 1], gain[row])
            else:
                items[n], gains[n] = item[row], gain[row]
                n += 1
        indptr[u + 1] = n
    return indptr, items[:n].copy(), gains[:n].copy()
