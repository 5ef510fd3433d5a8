"""Gradients of factorization machines: what a batch says of each row of its users, items and features.

    e_f = (a_f, v_f)  sum of weight times row over the entries of field f;  S = sum_f v_f over the fields of a pair
    score             sum_f a_f + 1/2 (|S|^2 - sum_f |v_f|^2) + c
    d score / d row   weight times (1, S - v_f)

The fields of a positive's query are the same for its negatives, and summed once. With rows of one number, a, it is
logistic regression.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from sparkrec.kernels.als.dense import REGROUPED
from sparkrec.kernels.arrays import F32, I32, I64
from sparkrec.kernels.gradients.losses import Goal, add_squares, pair_loss


class Vectors(NamedTuple):
    """Sparse vectors of n queries or items, field after field, and where the gradient of each entry's row goes."""

    start: I64
    """(n + 1,)"""
    row: I64
    """(e,) of the table of items and features."""
    weight: F32
    field: I64
    """(e,) which field, ascending in each vector."""
    place: I32
    """(e,) row of the sums; of none where there are no gradients."""


class FieldPairs(NamedTuple):
    """Positives and their negatives."""

    user: I64
    """(b,) rows of the table of users."""
    user_place: I32
    item: I32
    """(b, 1 + n) rows of the table of items and features."""
    item_place: I32
    values: F32
    confidence: F32
    query: Vectors
    """(b,) what is known of who asks."""
    known: Vectors
    """(b (1 + n),) what is known of the items."""


@njit(cache=True, nogil=True)
def add_gradients(
    users: F32,
    items: F32,
    constant: float,
    pairs: FieldPairs,
    goal: Goal,
    weight_l2: float,
    scale: float,
    user_sums: F32,
    item_sums: F32,
) -> tuple[float, float]:
    """The loss of a batch times `scale` and its derivative by c; the gradients of rows are added to the sums.

    users, items           (n, 1 + d) and (m, 1 + d) float32: weight and vector
    user_sums, item_sums   (u, 1 + d) and (v, 1 + d) float32
    weight_l2              L2 on weights over that on vectors
    """
    size, k = users.shape[1], pairs.item.shape[1]
    scores, by_score = np.empty(k, np.float32), np.empty(k, np.float32)
    query, of_items, pulled = np.empty(size, np.float32), np.empty((k, size), np.float32), np.empty(size, np.float32)
    field = np.empty(size, np.float32)
    total = by_constant = 0.0
    for e in range(len(pairs.user)):
        alone = add_up(users, pairs.user[e], items, pairs.query, e, query, field)
        for j in range(k):
            own = add_up(items, pairs.item[e, j], items, pairs.known, e * k + j, of_items[j], field)
            scores[j] = alone + own + inner(query, of_items[j]) + constant
        total += pair_loss(goal, scores, pairs.values[e], pairs.confidence[e], scale, by_score)
        by_constant += move_rows(users, items, pairs, e, query, of_items, by_score, user_sums, item_sums, pulled, field)
        total += shrink_rows(users, items, pairs, e, goal, weight_l2, scale, user_sums, item_sums)
    return total, by_constant


@njit(cache=True, nogil=True)
def scores(users: F32, items: F32, features: F32, constant: float, query: Vectors, known: Vectors) -> F32:
    """(n,) of n queries, each of one item.

    users, items   (n, 1 + d) rows of each
    query, known   (n,) what is known of who asks, and of the item: rows of `features`
    """
    found = np.empty(len(users), np.float32)
    first, second = np.empty(users.shape[1], np.float32), np.empty(users.shape[1], np.float32)
    field = np.empty(users.shape[1], np.float32)
    for at in range(len(users)):
        alone = add_up(users, at, features, query, at, first, field)
        own = add_up(items, at, features, known, at, second, field)
        found[at] = alone + own + inner(first, second) + constant
    return found


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def add_up(own: F32, row: int, table: F32, vectors: Vectors, at: int, sums: F32, field: F32) -> Any:
    """`sums` become the sum of the fields of a query or item; what it scores by itself."""
    squares = np.float32(0.0)
    for i in range(len(sums)):
        sums[i] = own[row, i]
        if i:
            squares += own[row, i] * own[row, i]
    entry, stop = vectors.start[at], vectors.start[at + 1]
    while entry < stop:
        last = _field_end(vectors, entry, stop)
        if last == entry + 1:  # as of most fields: no detour
            weight, row = vectors.weight[entry], vectors.row[entry]
            sums[0] += weight * table[row, 0]
            for i in range(1, len(sums)):
                part = weight * table[row, i]
                sums[i] += part
                squares += part * part
        else:
            _pool(table, vectors, entry, last, field)
            sums[0] += field[0]
            for i in range(1, len(sums)):
                sums[i] += field[i]
                squares += field[i] * field[i]
        entry = last
    alone = -squares
    for i in range(1, len(sums)):
        alone += sums[i] * sums[i]
    return sums[0] + np.float32(0.5) * alone


@njit(cache=True, nogil=True, inline="always")
def _field_end(vectors: Vectors, entry: int, stop: int) -> int:
    last = entry + 1
    while last < stop and vectors.field[last] == vectors.field[entry]:
        last += 1
    return last


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _pool(table: F32, vectors: Vectors, first: int, stop: int, field: F32) -> None:
    for i in range(len(field)):
        field[i] = vectors.weight[first] * table[vectors.row[first], i]
    for entry in range(first + 1, stop):
        for i in range(len(field)):
            field[i] += vectors.weight[entry] * table[vectors.row[entry], i]


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def inner(query: F32, item: F32) -> Any:
    total = np.float32(0.0)
    for i in range(1, len(query)):
        total += query[i] * item[i]
    return total


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def move_rows(
    users: F32,
    items: F32,
    pairs: FieldPairs,
    e: int,
    query: F32,
    of_items: F32,
    by_score: F32,
    user_sums: F32,
    item_sums: F32,
    pulled: F32,
    field: F32,
) -> Any:
    """The gradients of example e are added to the sums; the sum of the derivatives by its scores.

    query, of_items  (1 + d,) and (k, 1 + d) from `add_up`; what is in `of_items` is lost
    pulled, field    (1 + d,) scratch
    """
    k = len(by_score)
    slopes = _pull(of_items, by_score, query, pulled)
    _move(users, pairs.user[e], user_sums, pairs.user_place[e], slopes, pulled)
    _move_entries(items, pairs.query, e, item_sums, slopes, pulled, field)
    for j in range(k):
        g, both = by_score[j], of_items[j]
        for at in range(len(query)):
            both[at] = g * (both[at] + query[at])
        _move(items, pairs.item[e, j], item_sums, pairs.item_place[e, j], g, both)
        _move_entries(items, pairs.known, e * k + j, item_sums, g, both, field)
    return slopes


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def shrink_rows(
    users: F32,
    items: F32,
    pairs: FieldPairs,
    e: int,
    goal: Goal,
    weight_l2: float,
    scale: float,
    user_sums: F32,
    item_sums: F32,
) -> float:
    """The L2 of the rows that example e reads, whose gradients are added to the sums."""
    total, k = 0.0, pairs.item.shape[1]
    if goal.user_l2:
        total += _shrink(users, pairs.user[e], weight_l2, goal.user_l2 * scale, user_sums, pairs.user_place[e])
    if goal.item_l2:
        rate = goal.item_l2 * scale
        total += _shrink_entries(items, pairs.query, e, weight_l2, rate, item_sums)
        for j in range(k):
            total += _shrink(items, pairs.item[e, j], weight_l2, rate, item_sums, pairs.item_place[e, j])
            total += _shrink_entries(items, pairs.known, e * k + j, weight_l2, rate, item_sums)
    return total


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _pull(of_items: F32, by_score: F32, query: F32, pulled: F32) -> Any:
    """`pulled` becomes the sum over items of g_j S_j; the sum of g_j."""
    slopes = np.float32(0.0)
    for j in range(len(by_score)):
        slopes += by_score[j]
    for i in range(len(query)):
        pulled[i] = slopes * query[i]
    for j in range(len(by_score)):
        for i in range(len(query)):
            pulled[i] += by_score[j] * of_items[j, i]
    return slopes


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _move(table: F32, row: int, sums: F32, place: int, slope: Any, pulled: F32) -> None:
    """The gradient of a field of one entry of weight 1: (g, g S - g v)."""
    slope = np.float32(slope)
    sums[place, 0] += slope
    for i in range(1, len(pulled)):
        sums[place, i] += pulled[i] - slope * table[row, i]


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _move_entries(table: F32, vectors: Vectors, at: int, sums: F32, slope: Any, pulled: F32, field: F32) -> None:
    slope = np.float32(slope)
    entry, stop = vectors.start[at], vectors.start[at + 1]
    while entry < stop:
        last = _field_end(vectors, entry, stop)
        _pool(table, vectors, entry, last, field)
        for each in range(entry, last):
            weight, place = vectors.weight[each], vectors.place[each]
            sums[place, 0] += weight * slope
            for i in range(1, len(field)):
                sums[place, i] += weight * (pulled[i] - slope * field[i])
        entry = last


@njit(cache=True, nogil=True)
def _shrink(table: F32, row: int, weight_l2: float, rate: float, sums: F32, place: int) -> Any:
    """`add_squares`, in which the weight counts `weight_l2` times."""
    weight, less = table[row, 0], np.float32(rate * (1.0 - weight_l2))
    sums[place, 0] -= np.float32(2.0) * less * weight
    return add_squares(table, row, rate, sums, place) - less * weight * weight


@njit(cache=True, nogil=True)
def _shrink_entries(table: F32, vectors: Vectors, at: int, weight_l2: float, rate: float, sums: F32) -> Any:
    total = 0.0
    for entry in range(vectors.start[at], vectors.start[at + 1]):
        total += _shrink(table, vectors.row[entry], weight_l2, rate, sums, vectors.place[entry])
    return total
