"""Losses of a positive and its negatives, and their derivatives by score: those of `training.losses` without torch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from sparkrec.kernels.als.dense import REGROUPED
from sparkrec.kernels.arrays import F32

PAIR_LOSSES = {"squared": 0, "weighted_squared": 1, "bce": 2, "bpr": 3, "hinge": 4, "log_loss": 5}
"""Their numbers, by name."""


class Goal(NamedTuple):
    """What a batch minimises."""

    loss: int
    """Of PAIR_LOSSES, whose formulas `training.losses` has."""
    negative: float
    """Weight of the negatives in weighted_squared and bce."""
    user_l2: float
    """Weight of the squares of a positive's user row."""
    item_l2: float
    """Weight of those of its item's and its negatives' rows."""


@njit(cache=True, nogil=True)
def pair_loss(goal: Goal, scores: F32, value: Any, confidence: Any, scale: float, by_score: F32) -> Any:
    """The loss of one positive, and its derivatives.

    scores      (1 + n,) float32: s of the positive, then s_j of its negatives
    value       v, observed; confidence c, weight of the positive
    scale       factor of it all
    by_score    (1 + n,) float32: becomes the derivatives
    """
    loss, negative = goal.loss, goal.negative
    k, own, total = len(scores), scores[0], 0.0
    if loss == 0:
        by_score[:] = 0.0
        error = own - value
        by_score[0] = 2.0 * scale * confidence * error
        return scale * confidence * error * error
    if loss == 1:
        for j in range(1, k):
            total += negative * scores[j] * scores[j]
            by_score[j] = 2.0 * scale * negative * scores[j]
        by_score[0] = 2.0 * scale * confidence * (own - 1.0)
        return scale * (total + confidence * (own - 1.0) ** 2)
    if loss == 2:
        for j in range(1, k):
            each, slope = _softplus(scores[j])
            total += negative * each
            by_score[j] = scale * negative * slope
        each, slope = _softplus(-own)
        by_score[0] = -scale * confidence * slope
        return scale * (total + confidence * each)
    if loss == 5:
        by_score[:] = 0.0
        side = 1.0 if value > 0 else -1.0
        each, slope = _softplus(-side * own)
        by_score[0] = -side * scale * confidence * slope
        return scale * confidence * each
    share, slopes = scale * confidence / (k - 1), 0.0
    for j in range(1, k):
        margin = own - scores[j]
        if loss == 3:
            each, slope = _softplus(-margin)
        else:
            each, slope = (1.0 - margin, 1.0) if margin < 1.0 else (0.0, 0.0)
        total += each
        slopes += slope
        by_score[j] = share * slope
    by_score[0] = -share * slopes
    return share * total


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def add_squares(table: F32, at: int, rate: Any, sums: F32, place: int) -> Any:
    """`rate` times the sum of squares of row `at`; its gradient is added to row `place` of the sums."""
    rate, total = np.float32(rate), np.float32(0.0)
    for k in range(table.shape[1]):
        total += table[at, k] * table[at, k]
        sums[place, k] += np.float32(2.0) * rate * table[at, k]
    return rate * total


@njit(cache=True, nogil=True)
def _softplus(score: Any) -> tuple[Any, Any]:
    """log(1 + exp(s)) and its derivative, without overflow."""
    small = np.exp(-abs(score))
    if score > 0.0:
        return score + np.log(1.0 + small), 1.0 / (1.0 + small)
    return np.log(1.0 + small), small / (1.0 + small)
