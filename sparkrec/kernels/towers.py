"""Gradients of GMF, MLP and NeuMF (He et al. 2017): h . (p_u * q_i, a_L) + c, without torch.

    a_1 = relu(U p'_u + V q'_i + b_1),   a_l = relu(W_l a_(l-1) + b_l)

x_u = (p_u, p'_u) and w_i = (q_i, q'_i). A batch is worked through in blocks that stay in the cache, where autograd
would write every step of the whole batch to memory; a user's U p'_u is computed once for all items.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from sparkrec.kernels.arrays import F32, I64
from sparkrec.kernels.dense import REGROUPED
from sparkrec.kernels.losses import Goal, add_squares, pair_loss
from sparkrec.kernels.pairs import Pairs

BLOCK = 128
"""Examples at a time: so few that BLAS, asked for layers of 45 numbers or fewer, starts no threads of its own."""


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def add_gradients(
    users: F32,
    items: F32,
    layers: I64,
    weights: F32,
    pairs: Pairs,
    goal: Goal,
    scale: float,
    user_sums: F32,
    item_sums: F32,
    weight_sums: F32,
) -> float:
    """The loss of a batch times `scale`; the gradients are added to the sums.

    users, items            (n, d + half) and (m, d + half) float32
    layers                  sizes half, of a_1, ..., of a_L; none of GMF
    weights                 U, V, b_1, W_2, b_2, ..., h, c, one after the other
    user_sums, item_sums    a row for each different user and item of `pairs`
    weight_sums             as weights
    """
    n_layers = max(len(layers) - 1, 0)
    half = layers[0] if n_layers else 0
    last = layers[n_layers] if n_layers else 0
    d, k = users.shape[1] - half, pairs.item.shape[1]
    h, by_h = weights[-1 - d - last : -1], weight_sums[-1 - d - last : -1]
    most = max(BLOCK // k, 1)
    widest = max(layers.max(), 1) if n_layers else 1
    before_users, before_items = np.empty((most, half), np.float32), np.empty((most * k, half), np.float32)
    scores, by_score = np.empty((most, k), np.float32), np.empty((most, k), np.float32)
    active = np.empty((n_layers + 1, most * k * widest), np.float32)
    by_active = np.empty((2, most * k * widest), np.float32)
    of_users = np.empty((2, most * widest), np.float32)
    product = np.empty(widest * widest, np.float32)
    total = 0.0
    for start in range(0, len(pairs.user), most):
        m = min(most, len(pairs.user) - start)
        for e in range(m):
            x = users[pairs.user[start + e]]
            before_users[e] = x[d:]
            for j in range(k):
                w = items[pairs.item[start + e, j]]
                before_items[e * k + j] = w[d:]
                score = weights[-1]
                for at in range(d):
                    score += h[at] * x[at] * w[at]
                scores[e, j] = score
        if n_layers:
            top = _forward(layers, weights, before_users[:m], before_items[: m * k], active, of_users)
            for row in range(m * k):
                score = np.float32(0.0)
                for at in range(last):
                    score += h[d + at] * top[row, at]
                scores[row // k, row % k] += score
        for e in range(m):
            given = pairs.values[start + e], pairs.confidence[start + e]
            total += pair_loss(goal, scores[e], given[0], given[1], scale, by_score[e])
        if n_layers:
            slope = by_active[0][: m * k * last].reshape(m * k, last)
            for row in range(m * k):
                g = by_score[row // k, row % k]
                for at in range(last):
                    by_h[d + at] += g * top[row, at]
                    slope[row, at] = g * h[d + at] if top[row, at] > 0 else np.float32(0.0)
            _backward(
                layers, weights, before_users[:m], before_items[: m * k], active, by_active, of_users, product,
                weight_sums,
            )  # fmt: skip
        for e in range(m):
            x, of_user = users[pairs.user[start + e]], user_sums[pairs.user_place[start + e]]
            for at in range(half):
                of_user[d + at] += before_users[e, at]
            for j in range(k):
                w, of_item = items[pairs.item[start + e, j]], item_sums[pairs.item_place[start + e, j]]
                g = by_score[e, j]
                weight_sums[-1] += g
                for at in range(d):
                    of_user[at] += g * h[at] * w[at]
                    of_item[at] += g * h[at] * x[at]
                    by_h[at] += g * x[at] * w[at]
                for at in range(half):
                    of_item[d + at] += before_items[e * k + j, at]
                if goal.item_l2:
                    at, place = pairs.item[start + e, j], pairs.item_place[start + e, j]
                    total += add_squares(items, at, goal.item_l2 * scale, item_sums, place)
            if goal.user_l2:
                at, place = pairs.user[start + e], pairs.user_place[start + e]
                total += add_squares(users, at, goal.user_l2 * scale, user_sums, place)
    return total


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _forward(layers: I64, weights: F32, users: F32, items: F32, active: F32, of_users: F32) -> Any:
    """a_L of each example, (m k, last); a_l is left in `active[l]`."""
    half, size, m, n = layers[0], layers[1], len(users), len(items)
    k = n // m
    at = size * half
    mine = of_users[0][: m * size].reshape(m, size)
    np.dot(users, weights[:at].reshape(size, half).T, mine)
    out = active[1][: n * size].reshape(n, size)
    np.dot(items, weights[at : 2 * at].reshape(size, half).T, out)
    at *= 2
    bias = weights[at : at + size]
    for row in range(n):
        for c in range(size):
            out[row, c] = max(out[row, c] + mine[row // k, c] + bias[c], np.float32(0.0))
    at += size
    for layer in range(2, len(layers)):
        before, size, given = size, layers[layer], out
        out = active[layer][: n * size].reshape(n, size)
        np.dot(given, weights[at : at + size * before].reshape(size, before).T, out)
        at += size * before
        bias = weights[at : at + size]
        for row in range(n):
            for c in range(size):
                out[row, c] = max(out[row, c] + bias[c], np.float32(0.0))
        at += size
    return out


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _backward(
    layers: I64,
    weights: F32,
    users: F32,
    items: F32,
    active: F32,
    by_active: F32,
    of_users: F32,
    product: F32,
    weight_sums: F32,
) -> None:
    """From the derivatives by W_L a_(L-1) + b_L in `by_active[0]`: those by weights are added to their sums, those by
    the rows p' and q' take the place of `users` and `items`."""
    half, m, n = layers[0], len(users), len(items)
    k = n // m
    at = 2 * layers[1] * half + layers[1]
    for layer in range(2, len(layers)):
        at += layers[layer] * (layers[layer - 1] + 1)
    last = layers[len(layers) - 1]
    slope, free = by_active[0][: n * last].reshape(n, last), 1
    for layer in range(len(layers) - 1, 1, -1):
        before, size = layers[layer - 1], layers[layer]
        at -= size * (before + 1)
        given = active[layer - 1][: n * before].reshape(n, before)
        _add_product(slope, given, product, weight_sums[at : at + size * before])
        _add_rows(slope, weight_sums[at + size * before : at + size * (before + 1)])
        below = by_active[free][: n * before].reshape(n, before)
        np.dot(slope, weights[at : at + size * before].reshape(size, before), below)
        for row in range(n):
            for c in range(before):
                if not given[row, c] > 0:
                    below[row, c] = 0.0
        slope, free = below, 1 - free
    size = layers[1]
    of_user = of_users[1][: m * size].reshape(m, size)
    of_user[:] = 0.0
    for row in range(n):
        for c in range(size):
            of_user[row // k, c] += slope[row, c]
    at = size * half
    _add_product(of_user, users, product, weight_sums[:at])
    _add_product(slope, items, product, weight_sums[at : 2 * at])
    _add_rows(of_user, weight_sums[2 * at : 2 * at + size])
    np.dot(of_user, weights[:at].reshape(size, half), users)
    np.dot(slope, weights[at : 2 * at].reshape(size, half), items)


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _add_product(left: F32, right: F32, product: F32, sums: F32) -> None:
    """sums += left' right, row after row."""
    rows, columns = left.shape[1], right.shape[1]
    np.dot(left.T, right, product[: rows * columns].reshape(rows, columns))
    for at in range(rows * columns):
        sums[at] += product[at]


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _add_rows(rows: F32, sums: F32) -> None:
    for row in range(len(rows)):
        for c in range(len(sums)):
            sums[c] += rows[row, c]
