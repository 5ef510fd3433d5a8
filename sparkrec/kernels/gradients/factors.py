"""Gradients of inner products, for models whose score is <p_u, q_i> + b_u + b_i + c: what a batch says of each row.

    x_u = (p_u, b_u), w_i = (q_i, b_i) of d + 1 numbers;   g_ej = d loss / d score(u_e, i_ej)
    d loss / d x_u = sum_{e of u} sum_j g_ej (q_ij, 1)      d loss / d w_i = sum_{e, j of i} g_ej (p_ue, 1)

Scores, loss and gradients are one pass: the rows of an example are read once.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numba import njit

from sparkrec.kernels.als.dense import REGROUPED, prefetch
from sparkrec.kernels.arrays import F32, F64
from sparkrec.kernels.gradients.embedding import AHEAD, Rule, at_step, move, update
from sparkrec.kernels.gradients.losses import Goal, add_squares, pair_loss
from sparkrec.kernels.gradients.pairs import Pairs, Steps, of_step

States: TypeAlias = tuple[F32, F32]
"""What an optimiser knows of each row of a table, as `kernels.embedding` has it."""

_of_step = njit(cache=True, nogil=True)(of_step)


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def add_gradients(
    users: F32, items: F32, constant: float, pairs: Pairs, goal: Goal, scale: float, user_sums: F32, item_sums: F32
) -> tuple[float, float]:
    """The loss of a batch times `scale` and its derivative by c; the gradients of rows are added to the sums.

    users, items           (n, d + 1) and (m, d + 1) float32, the last column a bias
    user_sums, item_sums   (u, d + 1) and (v, d + 1) float32, one row for each different user and item of `pairs`
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
        total += pair_loss(goal, scores, pairs.values[e], pairs.confidence[e], scale, by_score)
        of_user = user_sums[pairs.user_place[e]]
        for j in range(k):
            w, of_item, g = items[pairs.item[e, j]], item_sums[pairs.item_place[e, j]], by_score[j]
            for at in range(d):
                of_user[at] += g * w[at]
                of_item[at] += g * x[at]
            of_user[d] += g
            of_item[d] += g
            by_constant += g
        if goal.user_l2:
            total += add_squares(users, pairs.user[e], goal.user_l2 * scale, user_sums, pairs.user_place[e])
        if goal.item_l2:
            for j in range(k):
                place = pairs.item_place[e, j]
                total += add_squares(items, pairs.item[e, j], goal.item_l2 * scale, item_sums, place)
    return total, by_constant


@njit(cache=True, nogil=True)
def train(
    users: F32,
    items: F32,
    dense: F32,
    of_users: States,
    of_items: States,
    of_dense: States,
    steps: Steps,
    goal: Goal,
    scales: F64,
    rates: F64,
    rule: Rule,
    first: int,
    clip: float,
    decay: float,
    user_sums: F32,
    item_sums: F32,
) -> F64:
    """Take steps number `first`, first + 1 ...: `add_gradients`, then the update of the rows. The loss of each (s,).

    dense          (1, 0) or (1, 1) float32: c, where it is learned; `of_dense` likewise
    scales, rates  (s,) factor of the loss, learning rate
    clip, decay    the derivative by c has at most that size, if it is not 0; weight decay of c
    ..._sums       scratch, a row for each different user or item of any step
    """
    losses, of_constant = np.empty(len(rates)), np.zeros_like(dense)
    for step in range(len(rates)):
        pairs, number, rate = _of_step(steps, step), first + step, rates[step]
        of_user, of_item = user_sums[: len(pairs.users)], item_sums[: len(pairs.items)]
        of_user[:] = 0.0
        of_item[:] = 0.0
        constant = float(dense[0, 0]) if dense.size else 0.0
        losses[step], slope = add_gradients(users, items, constant, pairs, goal, scales[step], of_user, of_item)
        update(users, of_users[0], of_users[1], pairs.users, of_user, rule, number, rate)
        update(items, of_items[0], of_items[1], pairs.items, of_item, rule, number, rate)
        if dense.size:
            slope = min(max(slope, -clip), clip) if clip else slope
            of_constant[0, 0] = slope + decay * constant
            move(dense, of_dense[0], of_dense[1], 0, of_constant, 0, rule, at_step(rule, number, rate))
    return losses
