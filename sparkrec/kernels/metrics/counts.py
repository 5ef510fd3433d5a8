"""What all lists together are like, from how often each item is in the first k of one.

For n_i of item i, m items in the catalogue, u lists and N = sum_i n_i:

    coverage        items with n_i > 0, over m
    entropy         sum_i -n_i / N log2(n_i / N), in bits
    gini            sum_i (2 place_i - m - 1) n_i / (m N), items by ascending n_i from place 1 to m: 0 if all are
                    recommended alike, 1 - 1 / m if one is alone
    personalisation 1 - sum_i n_i (n_i - 1) / (u (u - 1) k): 1 less the mean share of the first k that two users have in
                    common, where all lists are k long
"""

from __future__ import annotations

import numpy as np

from sparkrec.kernels.arrays import F64, I64


def coverage(counts: I64, m: int) -> float:
    return float(np.count_nonzero(counts) / m)


def entropy(counts: I64) -> float:
    """NaN where nothing is recommended."""
    share: F64 = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(share * np.log2(share)).sum()) if len(share) else float("nan")


def gini(counts: I64, m: int) -> float:
    """Of any of the counts that are above 0; the others of the m items have 0. NaN where nothing is recommended."""
    there = np.sort(counts[counts > 0])
    if not len(there):
        return float("nan")
    place = np.arange(m - len(there) + 1, m + 1)
    return float(((2.0 * place - m - 1) * there).sum() / (m * float(there.sum())))


def personalisation(counts: I64, lists: int, k: int) -> float:
    """NaN for fewer than two lists."""
    n = counts.astype(np.float64)
    return float(1.0 - (n * (n - 1)).sum() / (lists * (lists - 1.0) * k)) if lists > 1 else float("nan")
