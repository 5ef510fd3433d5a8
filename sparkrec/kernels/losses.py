"""Losses of sampled pairs and their derivatives by score: those of `training.losses`, in one pass over a batch.

All have one signature and return the loss, a sum over the positives:

    scores      (b, 1 + n) float32: of a positive, then of its negatives
    values      (b,) float32 observed
    confidence  (b,) float32 weight of each positive
    negative    weight of the negatives, where a loss has one
    scale       factor of it all
    by_score    (b, 1 + n) float32: filled with the derivatives
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numba import njit

from sparkrec.kernels.arrays import F32

PairLoss: TypeAlias = Callable[[F32, F32, F32, float, float, F32], float]


@njit(cache=True, nogil=True)
def _logistic(score: float) -> tuple[float, float]:
    """log(1 + exp(s)) and its derivative, without overflow."""
    small = np.exp(-abs(score))
    if score > 0.0:
        return score + np.log1p(small), 1.0 / (1.0 + small)
    return np.log1p(small), small / (1.0 + small)


@njit(cache=True, nogil=True)
def squared(scores: F32, values: F32, confidence: F32, negative: float, scale: float, by_score: F32) -> float:
    """c (s - v)^2 of the observed values; negatives are not part of it."""
    total = 0.0
    for e in range(len(scores)):
        by_score[e] = 0.0
        error = scores[e, 0] - values[e]
        total += confidence[e] * error * error
        by_score[e, 0] = 2.0 * scale * confidence[e] * error
    return scale * total


@njit(cache=True, nogil=True)
def weighted_squared(scores: F32, values: F32, confidence: F32, negative: float, scale: float, by_score: F32) -> float:
    """c (s - 1)^2 + negative sum_j s_j^2 (Hu, Koren and Volinsky 2008, on a sample)."""
    total = 0.0
    for e in range(len(scores)):
        error = scores[e, 0] - 1.0
        total += confidence[e] * error * error
        by_score[e, 0] = 2.0 * scale * confidence[e] * error
        for j in range(1, scores.shape[1]):
            total += negative * scores[e, j] * scores[e, j]
            by_score[e, j] = 2.0 * scale * negative * scores[e, j]
    return scale * total


@njit(cache=True, nogil=True)
def bce(scores: F32, values: F32, confidence: F32, negative: float, scale: float, by_score: F32) -> float:
    """c log(1 + exp(-s)) + negative sum_j log(1 + exp(s_j)) (He et al. 2017, eq. 7)."""
    total = 0.0
    for e in range(len(scores)):
        loss, slope = _logistic(-scores[e, 0])
        total += confidence[e] * loss
        by_score[e, 0] = -scale * confidence[e] * slope
        for j in range(1, scores.shape[1]):
            loss, slope = _logistic(scores[e, j])
            total += negative * loss
            by_score[e, j] = scale * negative * slope
    return scale * total


@njit(cache=True, nogil=True)
def bpr(scores: F32, values: F32, confidence: F32, negative: float, scale: float, by_score: F32) -> float:
    """c / n sum_j log(1 + exp(s_j - s)) (Rendle et al. 2009)."""
    total = 0.0
    for e in range(len(scores)):
        share = confidence[e] / (scores.shape[1] - 1)
        own = 0.0
        for j in range(1, scores.shape[1]):
            loss, slope = _logistic(scores[e, j] - scores[e, 0])
            total += share * loss
            by_score[e, j] = scale * share * slope
            own += slope
        by_score[e, 0] = -scale * share * own
    return scale * total


@njit(cache=True, nogil=True)
def hinge(scores: F32, values: F32, confidence: F32, negative: float, scale: float, by_score: F32) -> float:
    """c / n sum_j max(0, 1 - s + s_j)."""
    total = 0.0
    for e in range(len(scores)):
        share = confidence[e] / (scores.shape[1] - 1)
        own = 0
        for j in range(1, scores.shape[1]):
            loss = 1.0 - scores[e, 0] + scores[e, j]
            by_score[e, j] = 0.0
            if loss > 0.0:
                total += share * loss
                by_score[e, j] = scale * share
                own += 1
        by_score[e, 0] = -scale * share * own
    return scale * total


PAIR_LOSSES: dict[str, PairLoss] = {
    "squared": squared,
    "weighted_squared": weighted_squared,
    "bce": bce,
    "bpr": bpr,
    "hinge": hinge,
}
