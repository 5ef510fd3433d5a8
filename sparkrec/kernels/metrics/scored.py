"""What scores of candidates are worth, user by user: sums over rows of a list, and how many rows they are about.

For one user, the list has scores s_r, best first, of which `clicked` says whose items are relevant.

    auc          mean over relevant items of the share of listed items that are not relevant which it beats, ties half;
                 one that is not listed beats none; 1/2 where nothing listed is irrelevant: nothing is known
    grouped_auc  the same of relevant items that are listed, of users with both kinds, weighed by their rows (Zhu et
                 al. 2017)
    log_loss     -log p of what happened, over rows, p = 1 / (1 + exp(-s)), in nats
    mae, rmse    |s - y| and, before the root, (s - y)^2 over the listed items that have a rating y
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sparkrec.kernels.arrays import F64, I64, Lists
from sparkrec.kernels.metrics.hits import locate_hits
from sparkrec.kernels.ragged import rows_of

Sums = tuple[F64, F64]
"""(u,) sums and (u,) weights."""


def auc_shares(ranked: Lists, scores: F64, relevant: Lists, clicked: NDArray[np.bool_]) -> F64:
    """Of each relevant item, what share of the irrelevant ones of the list scores lower, ties half."""
    start = ranked[0]
    irrelevant = np.diff(start) - _over_rows(start, clicked.astype(np.float64))
    share = np.where(np.repeat(irrelevant > 0, np.diff(relevant[0])), 0.0, 0.5)
    place, at, _ = locate_hits(*ranked, *relevant)
    there = place > 0
    share[at[there]] = _shares(start, scores, clicked)[there]
    return share


def auc(share: F64, relevant: Lists) -> Sums:
    """share: of each relevant item, as `auc_shares` gives it."""
    n = np.diff(relevant[0])
    return _over_rows(relevant[0], share) / np.maximum(n, 1), (n > 0).astype(np.float64)


def grouped_auc(start: I64, scores: F64, clicked: NDArray[np.bool_]) -> Sums:
    clicks = _over_rows(start, clicked.astype(np.float64))
    both = (clicks > 0) & (clicks < np.diff(start))
    won = _over_rows(start, np.where(clicked, _shares(start, scores, clicked), 0.0)) / np.maximum(clicks, 1)
    rows = np.where(both, np.diff(start), 0).astype(np.float64)
    return rows * won, rows


def log_loss(start: I64, scores: F64, clicked: NDArray[np.bool_]) -> Sums:
    return _over_rows(start, np.logaddexp(0.0, np.where(clicked, -1.0, 1.0) * scores)), np.diff(start).astype(
        np.float64
    )


def errors(ranked: Lists, scores: F64, rated: Lists, ratings: F64, power: int) -> Sums:
    """Sums of |s - y|^power over rows that are rated."""
    place, at, _ = locate_hits(*ranked, *rated)
    there = place > 0
    error = np.zeros(len(scores))
    error[there] = np.abs(scores[there] - ratings[at[there]]) ** power
    return _over_rows(ranked[0], error), _over_rows(ranked[0], there.astype(np.float64))


def _over_rows(start: I64, values: F64) -> F64:
    rows = rows_of(start)
    return np.asarray(np.bincount(rows, values, minlength=len(start) - 1), np.float64)


@njit(cache=True, nogil=True)
def _shares(start: I64, scores: F64, clicked: NDArray[np.bool_]) -> F64:
    """Of each row, the share of the irrelevant ones of its list that score lower, ties half; 1/2 where there are
    none."""
    share = np.full(len(scores), 0.5)
    for u in range(len(start) - 1):
        first, stop = start[u], start[u + 1]
        irrelevant = (stop - first) - clicked[first:stop].sum()
        above = 0
        while first < stop and irrelevant:
            last = first
            while last < stop and scores[last] == scores[first]:
                last += 1
            tied = (last - first) - clicked[first:last].sum()
            share[first:last] = (irrelevant - above - tied / 2) / irrelevant
            above += tied
            first = last
    return share
