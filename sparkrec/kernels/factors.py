"""Gradients of inner products, for models whose score is <p_u, q_i> + b_u + b_i + c: what a batch says of each row.

    x_u = (p_u, b_u), w_i = (q_i, b_i) of d + 1 numbers;   g_ej = d loss / d score(u_e, i_ej)
    d loss / d x_u = sum_{e of u} sum_j g_ej (q_ij, 1)      d loss / d w_i = sum_{e, j of i} g_ej (p_ue, 1)

Scores, loss and gradients are one pass: the rows of an example are read once.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numba import njit

from sparkrec.kernels.arrays import F32, F64
from sparkrec.kernels.dense import REGROUPED, prefetch
from sparkrec.kernels.embedding import AHEAD, Rule, at_step, move, update
from sparkrec.kernels.losses import Goal, add_squares, pair_loss
from sparkrec.kernels.pairs import Pairs, Steps, of_step

States: TypeAlias = tuple[F32, F32]
"""What an optimiser knows of each row of a table, as `kernels.embedding` has it."""

_of_step = njit(cache=True, nogil=True)(of_step)


@njit(cache=True, nogil=True)
def add_gradients(
    users: F32, items: F32, constant: float, pairs: Pairs, goal: Goal, scale: float, user_sums: F32, item_sums: F32
) -> tuple[float, float]:
    """The loss of a batch times `scale` and its derivative by c; the gradients of rows are added to the sums.

    users, items           (n, d + 1) and (m, d + 1) float32, the last column a bias
    user_sums, item_sums   (u, d + 1) and (v, d + 1) float32, one row for each different user and item of `pairs`
    """
    scores, by_score = np.empty(pairs.item.shape[1], np.float32), np.empty(pairs.item.shape[1], np.float32)
    total = by_constant = 0.0
    for e in range(len(pairs.user)):
        of_user = user_sums[pairs.user_place[e]]
        each, slope = _add(users, items, constant, pairs, e, goal, scale, scores, by_score, of_user, item_sums)
        total, by_constant = total + each, by_constant + slope
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
    item_sums: F32,
) -> F64:
    """Take steps number `first`, first + 1 ...: the loss of each (s,).

    A step is `add_gradients` and an update of the rows that it read. A user's examples follow one another, so a user
    is moved as soon as they are done, while the row is in the cache.

    dense          (0,) or (1,) float32: c, where it is learned; `of_dense` are (0,) or (1,), too
    scales, rates  (s,) factor of the loss, learning rate
    clip, decay    the derivative by c has at most that size, if it is not 0; weight decay of c
    item_sums      scratch, a row for each different item of any step
    """
    losses, of_user, of_constant = np.empty(len(rates)), np.zeros(users.shape[1], np.float32), np.zeros_like(dense)
    k = steps.pairs.item.shape[1]
    scores, by_score = np.empty(k, np.float32), np.empty(k, np.float32)
    for step in range(len(rates)):
        pairs, moves = _of_step(steps, step), at_step(rule, first + step, rates[step])
        sums = item_sums[: len(pairs.items)]
        sums[:] = 0.0
        constant = float(dense[0]) if len(dense) else 0.0
        total = by_constant = 0.0
        for e in range(len(pairs.user)):
            user, ahead = pairs.user[e], min(e + AHEAD, len(pairs.user) - 1)
            prefetch(of_users[0], pairs.user[ahead])
            prefetch(of_users[1], pairs.user[ahead])
            each, slope = _add(users, items, constant, pairs, e, goal, scales[step], scores, by_score, of_user, sums)
            total, by_constant = total + each, by_constant + slope
            if e + 1 == len(pairs.user) or pairs.user[e + 1] != user:
                move(users[user], of_users[0][user], of_users[1][user], of_user, rule, moves)
                of_user[:] = 0.0
        update(items, of_items[0], of_items[1], pairs.items, sums, rule, first + step, rates[step])
        if len(dense):
            slope = min(max(by_constant, -clip), clip) if clip else by_constant
            of_constant[0] = slope + decay * constant
            move(dense, of_dense[0], of_dense[1], of_constant, rule, moves)
        losses[step] = total
    return losses


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _add(
    users: F32,
    items: F32,
    constant: float,
    pairs: Pairs,
    e: int,
    goal: Goal,
    scale: float,
    scores: F32,
    by_score: F32,
    of_user: F32,
    item_sums: F32,
) -> tuple[float, float]:
    """What example e adds."""
    d, k = users.shape[1] - 1, pairs.item.shape[1]
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
    total = pair_loss(goal, scores, pairs.values[e], pairs.confidence[e], scale, by_score)
    by_constant = 0.0
    for j in range(k):
        w, of_item, g = items[pairs.item[e, j]], item_sums[pairs.item_place[e, j]], by_score[j]
        for at in range(d):
            of_user[at] += g * w[at]
            of_item[at] += g * x[at]
        of_user[d] += g
        of_item[d] += g
        by_constant += g
        if goal.item_l2:
            total += add_squares(w, goal.item_l2 * scale, of_item)
    if goal.user_l2:
        total += add_squares(x, goal.user_l2 * scale, of_user)
    return total, by_constant
