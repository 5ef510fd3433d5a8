"""Accuracy of lists, user by user.

For one user, R are the relevant items, g_i > 0 the gain of item i, hit_r = 1 if the r-th item of the list, from 1, is
in R, else 0, hits_k = hit_1 + ... + hit_k, and g_(1) >= g_(2) >= ... the gains of R.

    hit_rate@k       1 if hits_k > 0 else 0
    precision@k      hits_k / k
    recall@k         hits_k / |R|
    capped_recall@k  hits_k / min(k, |R|)
    f1@k             2 hits_k / (k + |R|), of precision and recall the harmonic mean
    mrr@k            1 / the first r <= k with hit_r = 1, else 0
    map@k            sum_{r<=k} hit_r hits_r / r  over  min(k, |R|)
    map_full@k       the same over |R|
    r_precision      hits_|R| / |R|
    ndcg@k           sum_{r<=k} hit_r / log2(r + 1)  over  sum_{r<=min(k,|R|)} 1 / log2(r + 1)
    ndcg_linear@k    sum_{r<=k} g_r / log2(r + 1)  over  sum_{r<=min(k,|R|)} g_(r) / log2(r + 1)
    ndcg_exponential@k   the same with 2^g - 1 in place of g
    ndcg_full_ideal@k    ndcg over sum_{r<=|R|} 1 / log2(r + 1): one list can be perfect only where k >= |R|

ndcg is that of Jarvelin and Kekalainen 2002, the exponential gains are those of Burges et al. 2005. A short or empty
list scores what it has: its missing places are no hits. A user without relevant items has no accuracy: NaN, so that
whoever averages must leave it out on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sparkrec.kernels.arrays import F64
from sparkrec.kernels.metrics.hits import Hits
from sparkrec.kernels.rankings import places

Formula: TypeAlias = Callable[[Hits, int], F64]
"""(hits, k) -> (u,)"""


def hit_rate(hits: Hits, k: int) -> F64:
    return (_count(hits, k) > 0).astype(np.float64)


def precision(hits: Hits, k: int) -> F64:
    return _count(hits, k) / k


def recall(hits: Hits, k: int) -> F64:
    return _count(hits, k) / hits.n_relevant


def capped_recall(hits: Hits, k: int) -> F64:
    return _count(hits, k) / np.minimum(k, hits.n_relevant)


def f1(hits: Hits, k: int) -> F64:
    return 2.0 * _count(hits, k) / (k + hits.n_relevant)


def mrr(hits: Hits, k: int) -> F64:
    return _sum(hits, (hits.nth == 1) / hits.place, hits.place <= k)


def map_(hits: Hits, k: int) -> F64:
    return _precisions(hits, k) / np.minimum(k, hits.n_relevant)


def map_full(hits: Hits, k: int) -> F64:
    return _precisions(hits, k) / hits.n_relevant


def r_precision(hits: Hits, _: int = 0) -> F64:
    return _sum(hits, np.ones(len(hits.user)), hits.place <= hits.n_relevant[hits.user]) / hits.n_relevant


def ndcg(hits: Hits, k: int) -> F64:
    return _sum(hits, _discount(hits.place), hits.place <= k) / _ideal(hits, k)


def ndcg_full_ideal(hits: Hits, k: int) -> F64:
    return _sum(hits, _discount(hits.place), hits.place <= k) / _ideal(hits, int(hits.n_relevant.max(initial=0)))


def ndcg_linear(hits: Hits, k: int) -> F64:
    return _graded(hits, k, lambda gains, most: gains / most)


def ndcg_exponential(hits: Hits, k: int) -> F64:
    return _graded(hits, k, lambda gains, most: np.exp2(gains - most) - np.exp2(-most))


AT_CUTOFF: dict[str, Formula] = {
    "hit_rate": hit_rate,
    "precision": precision,
    "recall": recall,
    "capped_recall": capped_recall,
    "f1": f1,
    "mrr": mrr,
    "map": map_,
    "map_full": map_full,
    "ndcg": ndcg,
    "ndcg_linear": ndcg_linear,
    "ndcg_exponential": ndcg_exponential,
    "ndcg_full_ideal": ndcg_full_ideal,
}
"""By name, those with a cutoff."""
WHOLE: dict[str, Formula] = {"r_precision": r_precision}
"""Those without."""


def accuracy(hits: Hits, name: str, k: int | None = None) -> F64:
    """(u,) a metric by its name, NaN for users without relevant items. Raises KeyError for a name that is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = WHOLE[name](hits, 0) if k is None else AT_CUTOFF[name](hits, k)
    return np.where(hits.n_relevant > 0, found, np.nan)


def _sum(hits: Hits, values: F64, which: NDArray[np.bool_]) -> F64:
    """Over the hits of each user that are asked for."""
    return np.asarray(np.bincount(hits.user[which], values[which], minlength=len(hits.n_relevant)), np.float64)


def _count(hits: Hits, k: int) -> F64:
    return _sum(hits, np.ones(len(hits.user)), hits.place <= k)


def _precisions(hits: Hits, k: int) -> F64:
    """Sum of precision@r over the hits r <= k."""
    return _sum(hits, hits.nth / hits.place, hits.place <= k)


def _discount(place: NDArray[np.int64]) -> F64:
    found: F64 = 1.0 / np.log2(place + 1.0)
    return found


def _ideal(hits: Hits, k: int) -> F64:
    """Of gains of 1: the first min(k, |R|) discounts."""
    sums = np.concatenate(([0.0], np.cumsum(_discount(np.arange(1, k + 1)))))
    found: F64 = sums[np.minimum(k, hits.n_relevant)]
    return found


def _graded(hits: Hits, k: int, gain: Callable[[F64, F64], F64]) -> F64:
    """gain(gains, most): over what the largest gain of the user is worth, which cancels out, so that none overflows."""
    start, gains = hits.ideal
    most = np.ones(len(hits.n_relevant))
    most[hits.n_relevant > 0] = gains[start[:-1][hits.n_relevant > 0]]
    place = places(start)
    user = np.repeat(np.arange(len(hits.n_relevant)), hits.n_relevant)
    within = place <= k
    ideal = gain(gains, most[user]) * _discount(place)
    best = np.bincount(user[within], ideal[within], minlength=len(hits.n_relevant))
    found: F64 = _sum(hits, gain(hits.gain, most[hits.user]) * _discount(hits.place), hits.place <= k) / best
    return found
