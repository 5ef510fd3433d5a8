"""Area under the ROC curve."""

from __future__ import annotations

import numpy as np

from sparkrec.kernels.arrays import F64, I64, check_indptr, frozen


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
