"""Gradients of DeepFM (Guo et al. 2017, eq. 1), without torch: those of a factorization machine, and of a perceptron on
the vectors of the same fields, one after the other.

    score   sum_f a_f + sum_{f < g} v_f . v_g + h . a_L(v_1, ..., v_F) + c
"""

from __future__ import annotations

import numpy as np
from numba import njit

from sparkrec.kernels.als.dense import REGROUPED
from sparkrec.kernels.arrays import F32, I64
from sparkrec.kernels.gradients import perceptron
from sparkrec.kernels.gradients.field_pairs import FieldPairs, Vectors, add_up, inner, move_rows, shrink_rows
from sparkrec.kernels.gradients.losses import Goal, pair_loss
from sparkrec.kernels.gradients.perceptron import BLOCK


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def add_gradients(
    users: F32,
    items: F32,
    constant: float,
    layers: I64,
    weights: F32,
    n_fields: tuple[int, int],
    pairs: FieldPairs,
    goal: Goal,
    weight_l2: float,
    scale: float,
    user_sums: F32,
    item_sums: F32,
    weight_sums: F32,
) -> tuple[float, float]:
    """As `field_pairs.add_gradients`, of which this has the arguments, and

    layers    sizes of a_1, ..., a_L
    weights   those of the perceptron, h, one after the other; weight_sums alike
    n_fields  of a query, the user among them, and of an item with itself
    """
    size, k, last = users.shape[1], pairs.item.shape[1], layers[-1]
    of_query, of_item = n_fields[0] * (size - 1), n_fields[1] * (size - 1)
    h, by_h = weights[-last:], weight_sums[-last:]
    most = max(BLOCK // k, 1)
    x_rows, y_rows = np.empty((most, of_query), np.float32), np.empty((most * k, of_item), np.float32)
    queries, of_items = np.empty((most, size), np.float32), np.empty((most * k, size), np.float32)
    scores, by_score = np.empty((most, k), np.float32), np.empty((most, k), np.float32)
    pulled, field = np.empty(size, np.float32), np.empty(size, np.float32)
    room = perceptron.room(layers, most, most * k, of_query, of_item)
    total = by_constant = 0.0
    for start in range(0, len(pairs.user), most):
        m = min(most, len(pairs.user) - start)
        x, y = x_rows[:m], y_rows[: m * k]
        for at in range(m):
            e = start + at
            alone = add_up(users, pairs.user[e], items, pairs.query, e, queries[at], field)
            _gather(users, pairs.user[e], items, pairs.query, e, x[at])
            for j in range(k):
                row = at * k + j
                own = add_up(items, pairs.item[e, j], items, pairs.known, e * k + j, of_items[row], field)
                _gather(items, pairs.item[e, j], items, pairs.known, e * k + j, y[row])
                scores[at, j] = alone + own + inner(queries[at], of_items[row]) + constant
        top = perceptron.forward(layers, weights, x, y, room)
        perceptron.score(top, h, scores[:m])
        for at in range(m):
            given = pairs.values[start + at], pairs.confidence[start + at]
            total += pair_loss(goal, scores[at], given[0], given[1], scale, by_score[at])
        perceptron.backward(layers, weights, h, x, y, by_score[:m], room, weight_sums, by_h)
        for at in range(m):
            e, rows = start + at, of_items[at * k : (at + 1) * k]
            by_constant += move_rows(
                users, items, pairs, e, queries[at], rows, by_score[at], user_sums, item_sums, pulled, field
            )
            _scatter(x[at], user_sums, pairs.user_place[e], item_sums, pairs.query, e)
            for j in range(k):
                _scatter(y[at * k + j], item_sums, pairs.item_place[e, j], item_sums, pairs.known, e * k + j)
            total += shrink_rows(users, items, pairs, e, goal, weight_l2, scale, user_sums, item_sums)
    return total, by_constant


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _gather(own: F32, row: int, table: F32, vectors: Vectors, at: int, fields: F32) -> None:
    """`fields` become the vectors of a query or item, one after the other."""
    d = own.shape[1] - 1
    for i in range(d):
        fields[i] = own[row, 1 + i]
    fields[d:] = 0.0
    for entry in range(vectors.start[at], vectors.start[at + 1]):
        first, weight, row = (1 + vectors.field[entry]) * d, vectors.weight[entry], vectors.row[entry]
        for i in range(d):
            fields[first + i] += weight * table[row, 1 + i]


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _scatter(by_fields: F32, own_sums: F32, place: int, sums: F32, vectors: Vectors, at: int) -> None:
    """Derivatives by the vectors of a query or item are added to those of the rows they are made of."""
    d = own_sums.shape[1] - 1
    for i in range(d):
        own_sums[place, 1 + i] += by_fields[i]
    for entry in range(vectors.start[at], vectors.start[at + 1]):
        first, weight, row = (1 + vectors.field[entry]) * d, vectors.weight[entry], vectors.place[entry]
        for i in range(d):
            sums[row, 1 + i] += weight * by_fields[first + i]
