"""Half-steps of ALS that form and factorize each row's matrix; `als` says what they compute."""

import numpy as np
from numba import njit

from sparkrec.kernels.als.dense import (
    LANES,
    REGROUPED,
    add_products,
    all_finite,
    minimize_nonnegative,
    prefetch,
    solve_definite,
    symmetrize,
)
from sparkrec.kernels.arrays import F32, F64, I32, I64

CHUNK = 256
"""Entries gathered at once: bounds the memory of a popular row, and keeps d x CHUNK floats near the core."""

AHEAD = 8
"""Entries from one that is used to the one that is asked for: memory takes as long as they do."""


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def half_step_exact(
    indptr: I64,
    indices: I32,
    target: F32,
    confidence: F32,
    src: F32,
    base: F64,
    unobserved_weight: float,
    reg: F64,
    nonnegative: bool,
    dst: F32,
) -> tuple[int, bool, float]:
    """Fills `dst`; returns (-1, True, loss), or the first row that failed and whether its system was finite."""
    n_dst, d = dst.shape
    padded = len(base)
    a, b = np.zeros((padded, padded + LANES)), np.zeros(padded)
    whole, pulled = np.zeros((padded, padded) if nonnegative else (0, 0)), np.zeros(padded)
    y, weighted = np.zeros((CHUNK, padded), np.float32), np.zeros((CHUNK, padded), np.float32)
    longest = longest_row(indptr)
    weight, pull = np.empty(longest, np.float32), np.empty(longest, np.float32)
    loss = 0.0

    for u in range(n_dst):
        n = indptr[u + 1] - indptr[u]
        if n == 0:
            continue
        for j in range(padded):
            for k in range(j // LANES * LANES, padded):
                a[j, k] = base[j, k]
        for j in range(d):
            a[j, j] += reg[u]
            b[j] = 0.0
        for e in range(n):
            c, p = confidence[indptr[u] + e], target[indptr[u] + e]
            weight[e] = c - unobserved_weight
            pull[e] = c * p
            loss += np.float64(c * p) * p
        accumulate(src, 0, d, indices[indptr[u] : indptr[u + 1]], weight, pull, y, weighted, a, b)
        pulled[:] = b
        if nonnegative:
            whole[:] = a[:, :padded]
            symmetrize(whole)
        for j in range(padded):
            a[j, padded] = b[j]
        if not solve_definite(a, b):
            return u, all_finite(a), 0.0  # what was not finite before the factorization still is not
        if nonnegative:
            minimize_nonnegative(whole, pulled, b)
        # x (A - reg I) x - 2 b x, in which A x = b, for x >= 0 wherever x is not 0
        for k in range(d):
            loss -= b[k] * (pulled[k] + reg[u] * b[k])
            dst[u, k] = b[k]
            if not np.isfinite(dst[u, k]):
                return u, False, 0.0
    return -1, True, loss


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def half_step_coordinate(
    indptr: I64,
    indices: I32,
    target: F32,
    confidence: F32,
    src: F32,
    base: F64,
    unobserved_weight: float,
    reg: F64,
    width: int,
    dst: F32,
) -> tuple[int, bool, float]:
    """As `half_step_exact`, a block of `width` coordinates after the other, the others where they are."""
    n_dst, d = dst.shape
    padded = (width + LANES - 1) // LANES * LANES
    a, b = np.zeros((padded, padded + LANES)), np.zeros(padded)
    y, weighted = np.zeros((CHUNK, padded), np.float32), np.zeros((CHUNK, padded), np.float32)
    longest = longest_row(indptr)
    weight, pull = np.empty(longest, np.float32), np.empty(longest, np.float32)
    score = np.empty(longest, np.float32)
    loss = 0.0

    for u in range(n_dst):
        n = indptr[u + 1] - indptr[u]
        if n == 0:
            continue
        x = dst[u]
        own = indices[indptr[u] : indptr[u + 1]]
        for e in range(n):
            weight[e] = confidence[indptr[u] + e] - unobserved_weight
            score[e] = 0.0
        _add_scores(src, 0, own, x, score)
        for first in range(0, d, width):
            n_block = min(width, d - first)
            for j in range(padded):
                for k in range(j // LANES * LANES, padded):
                    inside = j < n_block and k < n_block
                    a[j, k] = base[first + j, first + k] if inside else np.float64(j == k)
                b[j] = 0.0
            for j in range(n_block):
                a[j, j] += reg[u]
                total = reg[u] * x[first + j]
                for k in range(d):
                    total += base[first + j, k] * x[k]
                b[j] = -total
            for e in range(n):
                pull[e] = confidence[indptr[u] + e] * target[indptr[u] + e] - weight[e] * score[e]
            if n_block < width:  # wider blocks filled what is padding now
                y[:] = 0.0
                weighted[:] = 0.0
            accumulate(src, first, n_block, own, weight, pull, y, weighted, a, b)
            for j in range(padded):
                a[j, padded] = b[j]
            if not solve_definite(a, b):
                return u, all_finite(a), 0.0
            step = b[:n_block].astype(np.float32)
            for k in range(n_block):
                x[first + k] += step[k]
            _add_scores(src, first, own, step, score)
        for e in range(n):
            miss = np.float64(target[indptr[u] + e]) - score[e]
            loss += confidence[indptr[u] + e] * miss * miss - unobserved_weight * score[e] * score[e]
        for j in range(d):
            if not np.isfinite(x[j]):
                return u, False, 0.0
            over_all = 0.0
            for k in range(d):
                over_all += base[j, k] * x[k]
            loss += x[j] * over_all
    return -1, True, loss


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _add_scores(src: F32, first: int, indices: I32, x: F32, score: F32) -> None:
    """score_e += x . y_e, y_e being coordinates first.. of src row indices[e], as many as x has."""
    for e in range(len(indices)):
        if e + AHEAD < len(indices):
            prefetch(src, indices[e + AHEAD])
        row = src[indices[e]]
        total = np.float32(0.0)
        for k in range(len(x)):
            total += row[first + k] * x[k]
        score[e] += total


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def accumulate(
    src: F32,
    first: int,
    width: int,
    indices: I32,
    weight: F32,
    pull: F32,
    y: F32,
    weighted: F32,
    a: F64,
    b: F64,
) -> None:
    """a += sum_e weight_e y_e y_e', b += sum_e pull_e y_e, y_e being coordinates first.. of src row indices[e].

    Fills the upper triangle of tiles of `a`; y and weighted are scratch, zero in columns from `width` on.
    """
    pulled = np.zeros(width, np.float32)
    for start in range(0, len(indices), CHUNK):
        n = min(CHUNK, len(indices) - start)
        for e in range(n):
            at = start + e
            if at + AHEAD < len(indices):
                prefetch(src, indices[at + AHEAD])
            row, w, p = src[indices[at]], weight[at], pull[at]
            y_e, weighted_e = y[e], weighted[e]
            for k in range(width):
                value = row[first + k]
                y_e[k] = value
                weighted_e[k] = w * value
                pulled[k] += p * value
        add_products(weighted, y, n, a)
        for k in range(width):
            b[k] += pulled[k]
            pulled[k] = 0.0


@njit(cache=True, nogil=True)
def longest_row(indptr: I64) -> int:
    longest = 0
    for u in range(len(indptr) - 1):
        longest = max(longest, indptr[u + 1] - indptr[u])
    return longest
