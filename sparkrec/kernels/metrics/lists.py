"""What lists are like, user by user, whoever likes them.

For one user, i_1, i_2, ... are the items of the list, n_k = min(k, its length), p_i the share of users that have item
i.

    novelty@k      1 / n_k sum_{r<=n_k} -log2 p_(i_r): self-information in bits (Zhou et al. 2010)
    popularity@k   1 / n_k sum_{r<=n_k} p_(i_r)
    diversity@k    1 - mean of cos(v_i, v_j) over pairs of different items among the first n_k (Ziegler et al. 2005)
    category_diversity@k  the same with the share of the categories of two items that both have, |A & B| / |A | B|, in
                   place of the cosine; items without any have nothing in common
    serendipity@k  1 / k sum_{r<=k} hit_r max(P_r - Q_(i_r), 0), with P_r = (m + 1 - r) / m of the place in the list and
                   Q_i the same of the place of item i in the list of the m items by popularity (Ge et al. 2010)
    miscalibration@k  sum_c p_c log2(p_c / q_c), in bits (Steck 2018): p_c is the share of category c in what the user
                   had before, of which each item divides 1 among its categories; q_c = .99 that in the first n_k items
                   + .01 p_c. 0: the list has the tastes of the user in proportion

`popularity_lift@k` is of all users together: mean popularity@k over the mean of the same of what they had before, less
1 (Abdollahpouri et al. 2019).

The mean is over what is there. A user with an empty list, or in diversity with one of one item, has none: NaN.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from sparkrec.kernels.arrays import F32, F64, I64, Lists
from sparkrec.kernels.metrics.hits import Hits
from sparkrec.kernels.ragged import rows_of
from sparkrec.kernels.rankings import places


def novelty(ranked: Lists, share: F64, k: int) -> F64:
    """(u,) of lists (indptr, rows of `share`), best first. Raises ValueError where an item that is listed has a share
    that is not in (0, 1]: its surprise would be infinite; smooth the shares of items that nobody has."""
    return _mean(ranked, -np.log2(_checked(ranked, share)), k)


def popularity(ranked: Lists, share: F64, k: int) -> F64:
    """(u,) of lists (indptr, rows of `share`), best first."""
    return _mean(ranked, share[ranked[1]], k)


def diversity(ranked: Lists, vectors: F32, k: int) -> F64:
    """(u,) of lists (indptr, rows of `vectors`), best first. A vector of zeros is like no other."""
    start, items = ranked
    norm = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    unit = np.divide(vectors, norm, out=np.zeros(vectors.shape), where=norm > 0)
    within = places(start) <= k
    rows = rows_of(start)[within]
    sums = np.zeros((len(start) - 1, vectors.shape[1]))
    np.add.at(sums, rows, unit[items[within]])
    itself = np.bincount(rows, (norm[items[within], 0] > 0).astype(np.float64), minlength=len(sums))
    n = np.minimum(np.diff(start), k)
    found: F64 = 1.0 - ((sums**2).sum(axis=1) - itself) / np.maximum(n * (n - 1), 1)
    return np.where(n > 1, found, np.nan)


def category_diversity(ranked: Lists, categories: Lists, k: int) -> F64:
    """(u,) of lists (indptr, rows of `categories`), best first.

    categories  (indptr, category numbers) of each item, in any order, none twice
    """
    found: F64 = _category_diversity(*ranked, *categories, int(categories[1].max(initial=-1)) + 1, k)
    return found


@njit(cache=True, nogil=True)
def _category_diversity(start: I64, items: I64, indptr: I64, categories: I64, n: int, k: int) -> F64:
    found = np.full(len(start) - 1, np.nan)
    has = np.zeros(n, np.bool_)
    for u in range(len(start) - 1):
        own = items[start[u] : min(start[u] + k, start[u + 1])]
        common = 0.0
        for a in range(len(own)):
            first = categories[indptr[own[a]] : indptr[own[a] + 1]]
            has[first] = True
            for b in range(a):
                second = categories[indptr[own[b]] : indptr[own[b] + 1]]
                both = 0
                for category in second:
                    both += has[category]
                if both:
                    common += both / (len(first) + len(second) - both)
            has[first] = False
        if len(own) > 1:
            found[u] = 1.0 - common / (len(own) * (len(own) - 1) / 2)
    return found


def serendipity(ranked: Lists, hits: Hits, popularity_place: I64, k: int) -> F64:
    """(u,) of lists (indptr, rows of `popularity_place`), best first.

    popularity_place  (m,) of each item, the most popular 1
    """
    m = len(popularity_place)
    within = hits.place <= k
    user, place = hits.user[within], hits.place[within]
    expected = (m + 1 - popularity_place[ranked[1][ranked[0][user] + place - 1]]) / m
    surprise = np.maximum((m + 1 - place) / m - expected, 0.0)
    found: F64 = np.bincount(user, surprise, minlength=len(hits.n_relevant)) / k
    return np.where(hits.length > 0, found, np.nan)


def miscalibration(ranked: Lists, before: Lists, categories: Lists, k: int) -> F64:
    """(u,) of lists, best first, and of what the users had before, both (indptr, rows of `categories`).

    categories  (indptr, category numbers) of each item; items without any say nothing
    """
    n = int(categories[1].max(initial=-1)) + 1
    found: F64 = _miscalibration(*ranked, *before, *categories, n, k)
    return found


_SMOOTHING = 0.01
"""So that a category that the list lacks does not cost infinity."""


@njit(cache=True, nogil=True)
def _miscalibration(start: I64, items: I64, began: I64, had: I64, indptr: I64, categories: I64, n: int, k: int) -> F64:
    found = np.full(len(start) - 1, np.nan)
    for u in range(len(start) - 1):
        q, p = np.zeros(n), np.zeros(n)
        _add_shares(q, items[start[u] : min(start[u] + k, start[u + 1])], indptr, categories)
        _add_shares(p, had[began[u] : began[u + 1]], indptr, categories)
        if p.sum() > 0 and q.sum() > 0:
            p, q = p / p.sum(), q / q.sum()
            q = (1 - _SMOOTHING) * q + _SMOOTHING * p
            found[u] = 0.0
            for c in range(n):
                if p[c] > 0:
                    found[u] += p[c] * np.log2(p[c] / q[c])
    return found


@njit(cache=True, nogil=True)
def _add_shares(shares: F64, items: I64, indptr: I64, categories: I64) -> None:
    for item in items:
        own = categories[indptr[item] : indptr[item + 1]]
        for category in own:
            shares[category] += 1.0 / len(own)


def _checked(ranked: Lists, share: F64) -> F64:
    found: F64 = share[ranked[1]]
    wrong = ~((found > 0) & (found <= 1))
    if wrong.any():
        raise ValueError(
            f"share: found {found[wrong][0]} of item {ranked[1][wrong][0]}, expected one in (0, 1]; smooth the shares "
            "of items that nobody has"
        )
    return found


def _mean(ranked: Lists, values: F64, k: int) -> F64:
    """Over the first k of each list."""
    start = ranked[0]
    within = places(start) <= k
    rows = rows_of(start)
    with np.errstate(invalid="ignore"):
        sums = np.asarray(np.bincount(rows[within], values[within], minlength=len(start) - 1), np.float64)
        return sums / np.minimum(np.diff(start), k)
