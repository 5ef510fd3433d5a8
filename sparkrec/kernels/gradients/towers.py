"""Gradients of GMF, MLP and NeuMF (He et al. 2017): h . (p_u * q_i, a_L) + c, without torch.

a_L is what a perceptron makes of p'_u and q'_i; x_u = (p_u, p'_u) and w_i = (q_i, q'_i).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from sparkrec.kernels.als.dense import REGROUPED
from sparkrec.kernels.arrays import F32, I64
from sparkrec.kernels.gradients import perceptron
from sparkrec.kernels.gradients.losses import Goal, add_squares, pair_loss
from sparkrec.kernels.gradients.pairs import Pairs
from sparkrec.kernels.gradients.perceptron import BLOCK


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
    weights                 those of the perceptron, h, c, one after the other
    user_sums, item_sums    a row for each different user and item of `pairs`
    weight_sums             as weights
    """
    deep = len(layers) > 0
    half, last = (layers[0], layers[-1]) if deep else (0, 0)
    d, k = users.shape[1] - half, pairs.item.shape[1]
    h, by_h = weights[-1 - d - last : -1], weight_sums[-1 - d - last : -1]
    most = max(BLOCK // k, 1)
    x_rows, y_rows = np.empty((most, half), np.float32), np.empty((most * k, half), np.float32)
    scores, by_score = np.empty((most, k), np.float32), np.empty((most, k), np.float32)
    room = perceptron.room(layers[1:], most, most * k, half, half)
    total = 0.0
    for start in range(0, len(pairs.user), most):
        m = min(most, len(pairs.user) - start)
        before_users, before_items = x_rows[:m], y_rows[: m * k]
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
        if deep:
            top = perceptron.forward(layers[1:], weights, before_users, before_items, room)
            perceptron.score(top, h[d:], scores[:m])
        for e in range(m):
            given = pairs.values[start + e], pairs.confidence[start + e]
            total += pair_loss(goal, scores[e], given[0], given[1], scale, by_score[e])
        if deep:
            perceptron.backward(
                layers[1:], weights, h[d:], before_users, before_items, by_score[:m], room, weight_sums, by_h[d:]
            )
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
