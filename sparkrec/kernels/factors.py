"""Gradients of inner products, for models whose score is <p_u, q_i> + b_u + b_i + c: what a batch says of each row.

    x_u = (p_u, b_u), w_i = (q_i, b_i) of d + 1 numbers;   g_ej = d loss / d score(u_e, i_ej)
    d loss / d x_u = sum_{e of u} sum_j g_ej (q_ij, 1)      d loss / d w_i = sum_{e, j of i} g_ej (p_ue, 1)

Scores, loss and gradients are one pass: the rows of an example are read once.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from sparkrec.kernels.arrays import F32
from sparkrec.kernels.dense import REGROUPED, prefetch
from sparkrec.kernels.embedding import AHEAD
from sparkrec.kernels.losses import pair_loss
from sparkrec.kernels.pairs import Pairs


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def add_gradients(
    users: F32,
    items: F32,
    constant: float,
    pairs: Pairs,
    loss: int,
    negative: float,
    scale: float,
    user_sums: F32,
    item_sums: F32,
) -> tuple[float, float]:
    """The loss of a batch and its derivative by c; the gradients of rows are added to the sums.

    users, items            (n, d + 1) and (m, d + 1) float32, the last column a bias
    loss, negative, scale   as in `kernels.losses`
    user_sums, item_sums    (u, d + 1) and (v, d + 1) float32, one row for each different user and item of `pairs`
    """
    d, k = users.shape[1] - 1, pairs.item.shape[1]
    scores, by_score = np.empty(k, np.float32), np.empty(k, np.float32)
    total = by_constant = 0.0
    for e in range(len(pairs.user)):
        if e + AHEAD < len(pairs.user):
            prefetch(users, pairs.user[e + AHEAD])
            for j in range(k):
                prefetch(items, pairs.item[e + AHEAD, j])
        x = users[pairs.user[e]]
        for j in range(k):
            w = items[pairs.item[e, j]]
            score = np.float32(0.0)
            for at in range(d):
                score += x[at] * w[at]
            scores[j] = score + x[d] + w[d] + constant
        total += pair_loss(loss, scores, pairs.values[e], pairs.confidence[e], negative, scale, by_score)
        of_user = user_sums[pairs.user_place[e]]
        for j in range(k):
            w, of_item, g = items[pairs.item[e, j]], item_sums[pairs.item_place[e, j]], by_score[j]
            for at in range(d):
                of_user[at] += g * w[at]
                of_item[at] += g * x[at]
            of_user[d] += g
            of_item[d] += g
            by_constant += g
    return total, by_constant
