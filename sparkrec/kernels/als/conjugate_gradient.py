"""The half-step of ALS by conjugate gradient (Takács et al. 2011); `als` says what it computes."""

import numpy as np
from numba import njit

from sparkrec.kernels.als.dense import REGROUPED, prefetch
from sparkrec.kernels.als.exact import AHEAD, CHUNK, longest_row
from sparkrec.kernels.arrays import F32, F64, I32, I64

KEPT = 1 << 14
"""Most entries of a row whose src factors cg copies side by side, to go over them again from near the core."""


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def half_step_cg(
    indptr: I64,
    indices: I32,
    target: F32,
    confidence: F32,
    src: F32,
    base: F32,
    unobserved_weight: float,
    reg: F64,
    steps: int,
    dst: F32,
) -> tuple[int, bool, float]:
    """As `half_step_exact`, by `steps` steps of conjugate gradient from `dst`; the matrix is never formed."""
    n_dst, d = dst.shape
    b, residual = np.empty(d, np.float32), np.empty(d, np.float32)
    direction, curved = np.empty(d, np.float32), np.empty(d, np.float32)
    total = np.empty(d)
    longest = longest_row(indptr)
    weight = np.empty(longest, np.float32)
    y = np.empty((min(longest, KEPT + 1), d), np.float32)  # one row more, for what is not kept
    loss = 0.0

    for u in range(n_dst):
        n = indptr[u + 1] - indptr[u]
        if n == 0:
            continue
        x = dst[u]
        own = indices[indptr[u] : indptr[u + 1]]
        near, far = min(n, KEPT), own[KEPT:]
        total[:] = 0.0
        for start in range(0, n, CHUNK):
            curved[:] = 0.0
            for e in range(start, min(start + CHUNK, n)):
                if e + AHEAD < n:
                    prefetch(src, own[e + AHEAD])
                c, p = confidence[indptr[u] + e], target[indptr[u] + e]
                weight[e] = c - unobserved_weight
                pull = c * p
                loss += np.float64(pull) * p
                row, y_e = src[own[e]], y[min(e, KEPT)]
                for k in range(d):
                    value = row[k]
                    y_e[k] = value
                    curved[k] += pull * value
            for k in range(d):
                total[k] += curved[k]
        for k in range(d):
            b[k] = total[k]
        _times(base, reg[u], x, total)
        _add_near(y, near, weight, x, total, curved)
        _add_far(src, far, weight[near:n], x, total, curved)
        for k in range(d):
            residual[k] = total[k]
        before = np.float32(0.0)
        for k in range(d):
            residual[k] = b[k] - residual[k]
            direction[k] = residual[k]
            before += residual[k] * residual[k]
        enough = max(np.float32(1e-10) * before, np.float32(1e-30))
        for _ in range(steps):
            if before <= enough:
                break
            _times(base, reg[u], direction, total)
            _add_near(y, near, weight, direction, total, curved)
            _add_far(src, far, weight[near:n], direction, total, curved)
            curvature = np.float32(0.0)
            for k in range(d):
                curved[k] = total[k]
            for k in range(d):
                curvature += direction[k] * curved[k]
            if not curvature > 0.0:
                return u, bool(curvature <= 0.0), 0.0
            length = before / curvature
            after = np.float32(0.0)
            for k in range(d):
                x[k] += length * direction[k]
                residual[k] -= length * curved[k]
                after += residual[k] * residual[k]
            for k in range(d):
                direction[k] = residual[k] + after / before * direction[k]
            before = after
        # x (A - reg I) x - 2 b x, in which A x = b - residual
        for k in range(d):
            loss -= np.float64(x[k]) * (np.float64(b[k]) + residual[k] + reg[u] * x[k])
            if not np.isfinite(x[k]):
                return u, False, 0.0
    return -1, True, loss


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _times(base: F32, reg: float, v: F32, out: F64) -> None:
    """out = (base + reg I) v"""
    d = len(v)
    for j in range(d):
        over_all = np.float32(0.0)
        for k in range(d):
            over_all += base[j, k] * v[k]
        out[j] = over_all + reg * v[j]


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _add_near(y: F32, n: int, weight: F32, v: F32, out: F64, part: F32) -> None:
    """out += sum_e weight_e (y_e . v) y_e over the first n rows of y; `part` is scratch."""
    d = len(v)
    for start in range(0, n, CHUNK):
        stop = min(start + CHUNK, n)
        part[:] = 0.0
        e = start
        while e + 4 <= stop:  # four at a time, a quarter of the traffic on v and part
            y0, y1, y2, y3 = y[e], y[e + 1], y[e + 2], y[e + 3]
            s0 = s1 = s2 = s3 = np.float32(0.0)
            for k in range(d):
                s0, s1, s2, s3 = s0 + y0[k] * v[k], s1 + y1[k] * v[k], s2 + y2[k] * v[k], s3 + y3[k] * v[k]
            s0, s1, s2, s3 = weight[e] * s0, weight[e + 1] * s1, weight[e + 2] * s2, weight[e + 3] * s3
            for k in range(d):
                part[k] += (s0 * y0[k] + s1 * y1[k]) + (s2 * y2[k] + s3 * y3[k])
            e += 4
        while e < stop:
            _add_one(y[e], weight[e], v, part)
            e += 1
        for k in range(d):
            out[k] += part[k]


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _add_far(src: F32, indices: I32, weight: F32, v: F32, out: F64, part: F32) -> None:
    """out += sum_e weight_e (y_e . v) y_e over the src rows `indices`; `part` is scratch."""
    for start in range(0, len(indices), CHUNK):
        part[:] = 0.0
        for e in range(start, min(start + CHUNK, len(indices))):
            if e + AHEAD < len(indices):
                prefetch(src, indices[e + AHEAD])
            _add_one(src[indices[e]], weight[e], v, part)
        for k in range(len(v)):
            out[k] += part[k]


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _add_one(row: F32, weight: float, v: F32, part: F32) -> None:
    score = np.float32(0.0)
    for k in range(len(v)):
        score += row[k] * v[k]
    score *= weight
    for k in range(len(v)):
        part[k] += score * row[k]
