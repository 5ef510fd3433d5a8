"""Metrics of predicted clicks: scores s against what was clicked.

    auc          chance that a click scores above what was not clicked, ties counted half (Hanley and McNeil 1982)
    grouped_auc  mean of each group's auc, weighted by its rows; groups with clicks only, or none, are left out (Zhu et
                 al. 2017, section 5)
    log_loss     mean of -log p of what happened, p = 1 / (1 + exp(-s)), in nats
    calibration  expected error: mean over buckets, weighted by rows, of |mean of p - share of clicks| (Naeini et al.
    2015)

All take rows in any order. NaN where a metric is not defined.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparkrec.kernels.arrays import F32, F64, I64

BUCKETS = 20
"""Of equal numbers of rows."""


def auc(scores: F64 | F32, clicked: NDArray[np.bool_]) -> float:
    """(n,), (n,) bool."""
    clicks = int(clicked.sum())
    others = len(clicked) - clicks
    if not clicks or not others:
        return float("nan")
    return float(_wins(scores, clicked, np.zeros(len(clicked), np.int64))[0] / (clicks * others))


def grouped_auc(scores: F64 | F32, clicked: NDArray[np.bool_], group: I64) -> float:
    """group  (n,) whose each row is."""
    _, group = np.unique(group, return_inverse=True)
    if not len(group):
        return float("nan")
    rows = np.bincount(group)
    clicks = np.bincount(group, clicked)
    pairs = clicks * (rows - clicks)
    both = pairs > 0
    if not both.any():
        return float("nan")
    each = _wins(scores, clicked, group)[both] / pairs[both]
    return float(np.average(each, weights=rows[both]))


def _wins(scores: F64 | F32, clicked: NDArray[np.bool_], group: I64) -> F64:
    """Of each group, pairs of a click and another row in which the click scores higher, ties half: the sum of the
    ranks of the clicks, of equal scores their mean, less that of the clicks among themselves."""
    order = np.lexsort((scores, group))
    group, scores, clicked = group[order], scores[order], clicked[order]
    starts = np.ones(len(scores), bool)
    starts[1:] = (scores[1:] != scores[:-1]) | (group[1:] != group[:-1])
    tie = np.cumsum(starts) - 1
    first, size = np.flatnonzero(starts), np.bincount(tie)
    of_group = np.searchsorted(group, np.arange(group[-1] + 1))
    rank = (first + (size + 1) / 2)[tie] - of_group[group]
    clicks = np.bincount(group, clicked)
    wins: F64 = np.bincount(group, rank * clicked) - clicks * (clicks + 1) / 2
    return wins


def log_loss(scores: F64 | F32, clicked: NDArray[np.bool_]) -> float:
    """(n,) logits, (n,) bool."""
    if not len(scores):
        return float("nan")
    return float(np.mean(np.logaddexp(0.0, np.where(clicked, -1.0, 1.0) * scores.astype(np.float64))))


def reliability(scores: F64 | F32, clicked: NDArray[np.bool_], buckets: int = BUCKETS) -> tuple[I64, F64, F64]:
    """Rows, mean of p and share of clicks of each bucket, by ascending score: the calibration plot."""
    order = np.argsort(scores, kind="stable")
    p = 1.0 / (1.0 + np.exp(-scores.astype(np.float64)))
    parts = [part for part in np.array_split(order, buckets) if len(part)]
    rows = np.array([len(part) for part in parts], np.int64)
    return rows, np.array([p[part].mean() for part in parts]), np.array([clicked[part].mean() for part in parts])


def calibration(scores: F64 | F32, clicked: NDArray[np.bool_], buckets: int = BUCKETS) -> float:
    """(n,) logits, (n,) bool."""
    if not len(scores):
        return float("nan")
    rows, expected, found = reliability(scores, clicked, buckets)
    return float(np.average(np.abs(expected - found), weights=rows))
