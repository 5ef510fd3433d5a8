"""Ranking metrics of every user of a batch, at every cutoff.

For one user, R are the relevant items, hit_r = 1 if the item ranked r-th, from 1, is in R, else 0, and
hits_k = hit_1 + ... + hit_k.

    hit_rate@k   1 if hits_k > 0 else 0
    recall@k     hits_k / |R|
    precision@k  hits_k / k
    ndcg@k       sum_{r<=k} hit_r / log2(r + 1)  over  sum_{r<=min(k,|R|)} 1 / log2(r + 1)
    map@k        sum_{r<=k} hit_r hits_r / r  over  min(k, |R|)
    mrr@k        1 / the first r <= k with hit_r = 1, else 0

ndcg is that of Jarvelin and Kekalainen 2002 with binary gains. Recall and the ideal of ndcg are those of the
published figures we compare with; some libraries divide recall by min(k, |R|) instead. A short or empty
ranking scores what it has: its missing places are no hits. Users without relevant items have no metric, NaN,
so that whoever averages must leave them out on purpose.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sparkrec.kernels.arrays import F64, I64, Lists, check_indptr, checked_lists, frozen

METRICS = ("hit_rate", "recall", "precision", "ndcg", "map", "mrr")


def ranking_metrics(ranked: NDArray[Any], relevant: Lists, cutoffs: Sequence[int]) -> dict[str, F64]:
    """Every metric of METRICS by name, each (n_users, len(cutoffs)) float64.

    ranked    (n_users, K) int32 or int64 item ids, best first, padded with -1
    relevant  (indptr, item ids) the ground truth of each user, ids ascending
    cutoffs   the k of each column, from 1 to K
    Raises ValueError where a user's ranking repeats an item (it would count twice), where a cutoff is longer
    than the rankings, and where the relevant ids of a user are not strictly ascending.
    """
    ranked = frozen(ranked, np.int64, "ranked", 2)
    _check_cutoffs(cutoffs, ranked.shape[1])
    _check_repeats(ranked)
    indptr, ids = checked_lists(relevant, len(ranked), "relevant", np.int64)
    n_relevant = np.diff(indptr)[:, None]
    hit = _hits(ranked, indptr, ids)

    places = np.arange(1, ranked.shape[1] + 1)
    last = np.asarray(cutoffs, np.int64) - 1  # column of the k-th place
    hits = np.cumsum(hit, axis=1)
    discount = 1 / np.log2(places + 1)
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 is the NaN of users without relevant items
        best_possible = np.minimum(last + 1, n_relevant)
        ideal = np.concatenate([[0.0], np.cumsum(discount)])[best_possible]
        first_hit = np.where(hits > 0, 1 / (hit.argmax(axis=1) + 1)[:, None], 0.0)
        found = {
            "hit_rate": (hits[:, last] > 0).astype(np.float64),
            "recall": hits[:, last] / n_relevant,
            "precision": hits[:, last] / (last + 1),
            "ndcg": np.cumsum(hit * discount, axis=1)[:, last] / ideal,
            "map": np.cumsum(hit * hits / places, axis=1)[:, last] / best_possible,
            "mrr": first_hit[:, last],
        }
    for values in found.values():
        values[n_relevant[:, 0] == 0] = np.nan
    return found


def auc_from_counts(greater: I64, equal: I64, relevant_indptr: I64, n_irrelevant: I64) -> F64:
    """Area under the ROC curve of every user, (n_users,) float64.

    That is the chance that a relevant item scores above an irrelevant candidate, ties counted half. With N
    irrelevant candidates, of which greater_t score above the relevant item t and equal_t the same:

        AUC = mean over t in R of (N - greater_t - equal_t / 2) / N

    greater, equal   (nnz,) from `topk.count_above` over the user's irrelevant candidates: its relevant items
                     are excluded there with the seen ones. They never compete with one another, and no
                     rounding between two ways to compute a score makes one differ from itself
    relevant_indptr  (n_users + 1,) which of the counts are whose
    n_irrelevant     (n_users,) N
    Users without relevant items, or without irrelevant candidates, are NaN. Raises ValueError where more was
    counted than there are candidates.
    """
    greater, equal = frozen(greater, np.int64, "greater"), frozen(equal, np.int64, "equal")
    indptr = frozen(relevant_indptr, np.int64, "relevant indptr")
    candidates = frozen(n_irrelevant, np.int64, "n_irrelevant")
    check_indptr(indptr, len(greater), "relevant")
    if len(equal) != len(greater) or len(candidates) != len(indptr) - 1:
        raise ValueError(
            f"counts: found {len(greater)} greater, {len(equal)} equal and {len(candidates)} users, "
            f"expected {len(greater)}, {len(greater)} and {len(indptr) - 1}"
        )
    n_relevant = np.diff(indptr)
    candidates_of = np.repeat(candidates, n_relevant)
    if (greater < 0).any() or (equal < 0).any() or (greater + equal > candidates_of).any():
        raise ValueError("counts: found negative ones, or more counted than there are irrelevant candidates")
    wins = np.concatenate([[0.0], np.cumsum(candidates_of - greater - equal / 2)])
    pairs = n_relevant * candidates
    return np.where(pairs > 0, np.diff(wins[indptr]) / np.maximum(pairs, 1), np.nan)


def novelty(ranked: NDArray[Any], popularity: F64, cutoffs: Sequence[int]) -> F64:
    """Mean self-information of what is recommended (Zhou et al. 2010), in bits: (n_users, n_cutoffs) float64.

        novelty@k = mean over the items i among the first k of -log2(popularity_i)

    ranked      (n_users, K) as in `ranking_metrics`
    popularity  (n_items,) by item id, the share of users (or of interactions) that an item has, in (0, 1]
    The mean is over the items there are: padding has no surprise. A user without any is NaN. Raises
    ValueError where a ranked item has no positive share: its surprise would be infinite; smooth the shares
    for items never seen.
    """
    ranked = frozen(ranked, np.int64, "ranked", 2)
    popularity = frozen(popularity, np.float64, "popularity")
    _check_cutoffs(cutoffs, ranked.shape[1])
    _check_repeats(ranked)
    present = ranked >= 0
    if present.any() and ranked.max() >= len(popularity):
        raise ValueError(f"ranked: found item {ranked.max()}, expected ids below {len(popularity)}, one a share")
    share = popularity[np.where(present, ranked, 0)] if present.any() else np.ones(ranked.shape)
    wrong = present & ~((share > 0) & (share <= 1))
    if wrong.any():
        raise ValueError(
            f"popularity: found {share[wrong][0]} for item {ranked[wrong][0]}, expected a share in (0, 1]; "
            "smooth the shares for items never seen"
        )
    last = np.asarray(cutoffs, np.int64) - 1
    surprise = np.cumsum(np.where(present, -np.log2(np.where(present, share, 1.0)), 0.0), axis=1)
    with np.errstate(invalid="ignore"):
        mean: F64 = surprise[:, last] / np.cumsum(present, axis=1)[:, last]
    return mean


def _check_cutoffs(cutoffs: Sequence[int], depth: int) -> None:
    wrong = [k for k in cutoffs if not 1 <= k <= depth]
    if wrong:
        raise ValueError(f"cutoffs: found {wrong[0]}, expected 1 to {depth}, the length of the rankings")


def _check_repeats(ranked: I64) -> None:
    ordered = np.sort(ranked, axis=1)
    repeats = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if repeats.any():
        row, place = np.argwhere(repeats)[0]
        raise ValueError(f"ranked: row {row} ranks item {ordered[row, place]} more than once")


@njit(cache=True, nogil=True)
def _hits(ranked: I64, indptr: I64, relevant: I64) -> NDArray[np.bool_]:
    """(n_users, K): whether each ranked item is relevant to its user. Padding never is."""
    hit = np.zeros(ranked.shape, np.bool_)
    for u in range(len(ranked)):
        ids = relevant[indptr[u] : indptr[u + 1]]
        for r in range(ranked.shape[1]):
            item = ranked[u, r]
            if item >= 0:
                at = np.searchsorted(ids, item)
                hit[u, r] = at < len(ids) and ids[at] == item
    return hit
