"""The half-step of weighted alternating least squares, explicit and implicit.

With the src factors Y fixed, the factors x_u of a dst row minimise

    sum_{i in N(u)} c_ui (p_ui - x.y_i)^2  +  w0 sum_{i not in N(u)} (x.y_i)^2  +  reg_u |x|^2

over its observed entries N(u), with confidence c and target p, and its unobserved ones, with weight w0 and
target 0. That is x_u = A^-1 b with

    A = w0 Y'Y + sum_{i in N(u)} (c_ui - w0) y_i y_i' + reg_u I
    b = sum_{i in N(u)} c_ui p_ui y_i

              w0   c            p        reg_u
    ALS-WR    0    1            rating   lambda n_u                    explicit; Zhou et al. 2008
    implicit  1    1 + alpha r  1        lambda                        Hu et al. 2008, eq. 4
    iALS      a0   1 + a0       1        lambda (n_u + a0 n_src)^nu    Rendle et al. 2022

How far a half-step goes towards that minimum is its Solver's business.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import njit

from sparkrec.kernels import dense
from sparkrec.kernels.arrays import F32, F64, I32, I64, frozen
from sparkrec.kernels.csr import Csr
from sparkrec.kernels.dense import (
    LANES,
    REGROUPED,
    add_products,
    all_finite,
    minimize_nonnegative,
    prefetch,
    solve_definite,
    symmetrize,
)

NOT_FINITE = "its factors, targets, confidences or regularization are not finite, or overflow float32"
NOT_POSITIVE_DEFINITE = "its matrix is not positive definite; raise the regularization"

CHUNK = 256
"""Entries gathered at once: bounds the memory of a popular row, and keeps d x CHUNK floats near the core."""

KEPT = 1 << 14
"""Most entries of a row whose src factors cg copies side by side, to go over them again from near the core."""

AHEAD = 8
"""Entries from one that is used to the one that is asked for: memory takes as long as they do."""


@dataclass(frozen=True)
class Solver:
    """How A x = b is solved.

    cholesky     exactly
    nonnegative  exactly among x >= 0, by coordinate descent
    cg           `steps` conjugate gradient steps from the factors of the last iteration (Takács et al. 2011)
    coordinate   one sweep over blocks of `width` coordinates from there, each exact (iALS++; Rendle et al. 2021)
    """

    method: Literal["cholesky", "nonnegative", "cg", "coordinate"] = "cholesky"
    steps: int = 3
    width: int = 32

    @property
    def needs_start(self) -> bool:
        """Whether it goes on from factors instead of from nothing."""
        return self.method in ("cg", "coordinate")


EXACT = Solver()


class SingularSystem(ValueError):
    """The linear system of dst row `row` has no trustworthy solution, for `reason`."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(row, reason)  # both, so that it survives pickling on its way out of a worker
        self.row = row
        self.reason = reason

    def __str__(self) -> str:
        return f"row {self.row} cannot be solved: {self.reason}"


def gram(src: F32) -> F64:
    """src.T @ src, (d, d) float64, of (n_src, d) float32 factors; exact to float64, in bounded extra memory.

    The grams of the blocks of src add up to the gram of src.
    """
    total = np.zeros((src.shape[1], src.shape[1]))
    for start in range(0, len(src), 4096):
        block = src[start : start + 4096].astype(np.float64)
        total += block.T @ block
    return total


def half_step_reference(
    targets: Csr,
    confidence: F32,
    src: F32,
    gram: F64,
    unobserved_weight: float,
    reg: F32 | F64,
    solver: Solver = EXACT,
    start: F32 | None = None,
) -> tuple[F32, float]:
    """`half_step` as it would be written on a blackboard; float64 throughout."""
    targets, confidence, src, gram, reg = _checked(targets, confidence, src, gram, reg)
    dst = np.zeros((targets.n_rows, src.shape[1]), np.float32)
    for u in range(targets.n_rows):
        own = slice(targets.indptr[u], targets.indptr[u + 1])
        if own.start == own.stop:
            continue
        y = src[targets.indices[own]].astype(np.float64)
        c, p = confidence[own].astype(np.float64), targets.values[own]
        a, b = (y.T * (c - unobserved_weight)) @ y, y.T @ (c * p)
        dst[u] = solve(a + gram, b, reg[u], solver, None if start is None else start[u], u)
        if not np.isfinite(dst[u]).all():
            raise SingularSystem(u, NOT_FINITE)
    return dst, squared_loss(targets, confidence, dst, src, unobserved_weight, gram)


def solve(a: F64, b: F64, reg: float, solver: Solver = EXACT, start: F32 | None = None, row: int = 0) -> F64:
    """x of one row: (a + reg I) x = b as the solver solves it, (d,) float64.

    a, b   (d, d) and (d,) float64, the sums at the top of this file
    start  (d,) where the solver goes on from
    Raises SingularSystem naming `row`.
    """
    a = a + reg * np.eye(len(b))
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise SingularSystem(row, NOT_FINITE)
    if solver.method == "cg":
        return _conjugate_gradient(a, b, _given(start), solver.steps, row)
    if solver.method == "coordinate":
        x = _given(start)
        for first in range(0, len(b), solver.width):
            block = slice(first, first + solver.width)
            x[block] += _solve_definite(a[block, block], b[block] - a[block] @ x, row)
        return x
    x = _solve_definite(a, b, row)
    if solver.method == "nonnegative":
        minimize_nonnegative(a, b, x)
    return x


def _solve_definite(a: F64, b: F64, row: int) -> F64:
    try:
        lower = np.linalg.cholesky(a)
    except np.linalg.LinAlgError:
        raise SingularSystem(row, NOT_POSITIVE_DEFINITE) from None
    if (np.diag(lower) ** 2 <= dense.PIVOT_FLOOR * np.diag(a)).any():
        raise SingularSystem(row, NOT_POSITIVE_DEFINITE)
    return np.asarray(np.linalg.solve(a, b), np.float64)


def _conjugate_gradient(a: F64, b: F64, x: F64, steps: int, row: int) -> F64:
    residual = b - a @ x
    direction = residual.copy()
    enough = max(1e-10 * float(residual @ residual), 1e-30)
    for _ in range(steps):
        before = residual @ residual
        if before <= enough:
            break
        curvature = direction @ a @ direction
        if curvature <= 0:
            raise SingularSystem(row, NOT_POSITIVE_DEFINITE)
        x += before / curvature * direction
        residual -= before / curvature * (a @ direction)
        direction = residual + (residual @ residual) / before * direction
    return x


def _given(start: F32 | None) -> F64:
    if start is None:
        raise ValueError("start: found None, expected the factors from which cg and coordinate go on")
    return start.astype(np.float64)


def half_step(
    targets: Csr,
    confidence: F32,
    src: F32,
    gram: F64,
    unobserved_weight: float,
    reg: F32 | F64,
    solver: Solver = EXACT,
    start: F32 | None = None,
) -> tuple[F32, float]:
    """Factors of every dst row, src factors fixed: the x_u at the top of this file.

    targets            n_dst x n_src, the value of an observed entry is its target p_ui
    confidence         (nnz,) float32, the weight c_ui of each observed entry, in the order of `targets`
    src                (n_src, d) float32
    gram               (d, d) float64, unobserved_weight * gram(src); zeros where the weight is zero
    unobserved_weight  w0, the weight of every unobserved entry
    reg                (n_dst,) float32 or float64, added to the diagonal
    start              (n_dst, d) float32 where cg and coordinate go on from
    Returns (n_dst, d) float32 and their `squared_loss`. Rows without observed entries are zero, and never solved. A
    cell that occurs twice in a row counts as two observations. Sums are float32 within CHUNK entries and float64
    beyond; the solution is float64 (cg: float32).
    Raises SingularSystem naming the first row that has no trustworthy solution, ValueError and TypeError for
    arguments that do not fit together.
    """
    targets, confidence, src, gram, reg = _checked(targets, confidence, src, gram, reg)
    shape = targets.n_rows, src.shape[1]
    if solver.needs_start:
        if start is None or start.shape != shape:
            raise ValueError(f"start: found {None if start is None else start.shape}, expected {shape} for cg and "
                             "coordinate")  # fmt: skip
        dst = frozen(start, np.float32, "start", 2).copy()
        dst[np.diff(targets.indptr) == 0] = 0.0
    else:
        dst = np.zeros(shape, np.float32)
    given = *targets, confidence, src
    w0 = float(unobserved_weight)
    if solver.method == "cg":
        failed, finite, loss = _half_step_cg(*given, gram.astype(np.float32), w0, reg, solver.steps, dst)
    elif solver.method == "coordinate":
        failed, finite, loss = _half_step_coordinate(*given, gram, w0, reg, min(solver.width, shape[1]), dst)
    else:
        failed, finite, loss = _half_step(*given, dense.padded(gram), w0, reg, solver.method == "nonnegative", dst)
    if failed >= 0:
        raise SingularSystem(failed, NOT_POSITIVE_DEFINITE if finite else NOT_FINITE)
    return dst, loss


def equations(targets: Csr, confidence: F32, src: F32, unobserved_weight: float) -> tuple[F64, F64]:
    """The sums over observed entries in A (d, d) and b (d,), float64, of a `targets` of one row.

    Those of the parts of a row add up: a row with too many entries for one task is summed in several.
    """
    d = src.shape[1]
    targets, confidence, src, *_ = _checked(targets, confidence, src, np.zeros((d, d)), np.zeros(targets.n_rows))
    if targets.n_rows != 1:
        raise ValueError(f"targets: found {targets.n_rows} rows, expected 1")
    b = np.zeros(d)
    a = np.zeros_like(dense.padded(np.zeros((d, d))))
    y, weighted = np.zeros((2, CHUNK, len(a)), np.float32)
    weight = confidence - np.float32(unobserved_weight)
    _accumulate(src, 0, d, targets.indices, weight, confidence * targets.values, y, weighted, a, b)
    symmetrize(a)
    return a[:d, :d], b


def squared_loss(targets: Csr, confidence: F32, dst: F32, src: F32, unobserved_weight: float, gram: F64) -> float:
    """The squared error that `half_step` minimises, without its regularization, as float64:

        sum_{observed} c_ui (p_ui - x_u.y_i)^2  +  w0 sum_{unobserved} (x_u.y_i)^2

    The unobserved cells are never visited: a row's sum over all cells is x' gram x, and the observed ones are
    taken off. Arguments as in `half_step`, `gram` included: unobserved_weight * gram(src). dst is
    (n_dst, d) float32. The losses of disjoint blocks of dst rows add up. With a positive weight, no cell may
    occur twice in a row.
    """
    no_reg = np.zeros(targets.n_rows)
    targets, confidence, src, gram, _ = _checked(targets, confidence, src, gram, no_reg)
    dst = frozen(dst, np.float32, "dst", 2)
    if dst.shape != (targets.n_rows, src.shape[1]):
        raise ValueError(f"dst: found shape {dst.shape}, expected {(targets.n_rows, src.shape[1])}")
    return float(_squared_loss(*targets, confidence, dst, src, float(unobserved_weight), gram))


def _checked(targets: Csr, confidence: F32, src: F32, gram: F64, reg: F32 | F64) -> tuple[Csr, F32, F32, F64, F64]:
    src = frozen(src, np.float32, "src", 2)
    targets = targets.checked(len(src), "targets")
    confidence = frozen(confidence, np.float32, "confidence")
    gram = frozen(gram, np.float64, "gram", 2)
    ridge: F64 = frozen(reg, np.float64, "reg")
    d = src.shape[1]
    if d == 0:
        raise ValueError("src: found 0 factors, expected at least one")
    if len(confidence) != targets.nnz:
        raise ValueError(f"confidence: found {len(confidence)} weights, expected one for each of {targets.nnz} targets")
    if gram.shape != (d, d):
        raise ValueError(f"gram: found shape {gram.shape}, expected {(d, d)}")
    if len(ridge) != targets.n_rows:
        raise ValueError(f"reg: found {len(ridge)} values, expected one for each of {targets.n_rows} dst rows")
    return targets, confidence, src, gram, ridge


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _half_step(
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
    longest = _longest(indptr)
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
        _accumulate(src, 0, d, indices[indptr[u] : indptr[u + 1]], weight, pull, y, weighted, a, b)
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
def _half_step_coordinate(
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
    """As `_half_step`, a block of `width` coordinates after the other, the others where they are."""
    n_dst, d = dst.shape
    padded = (width + LANES - 1) // LANES * LANES
    a, b = np.zeros((padded, padded + LANES)), np.zeros(padded)
    y, weighted = np.zeros((CHUNK, padded), np.float32), np.zeros((CHUNK, padded), np.float32)
    longest = _longest(indptr)
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
            _accumulate(src, first, n_block, own, weight, pull, y, weighted, a, b)
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
def _accumulate(
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
def _longest(indptr: I64) -> int:
    longest = 0
    for u in range(len(indptr) - 1):
        longest = max(longest, indptr[u + 1] - indptr[u])
    return longest


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _half_step_cg(
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
    """As `_half_step`, by `steps` steps of conjugate gradient from `dst`; the matrix is never formed."""
    n_dst, d = dst.shape
    b, residual = np.empty(d, np.float32), np.empty(d, np.float32)
    direction, curved = np.empty(d, np.float32), np.empty(d, np.float32)
    total = np.empty(d)
    longest = _longest(indptr)
    weight = np.empty(longest, np.float32)
    y = np.empty((min(longest, KEPT), d), np.float32)
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
                row, y_e = src[own[e]], y[min(e, KEPT - 1)]
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


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _squared_loss(
    indptr: I64,
    indices: I32,
    target: F32,
    confidence: F32,
    dst: F32,
    src: F32,
    unobserved_weight: float,
    gram: F64,
) -> float:
    total = 0.0
    for u in range(len(dst)):
        x = dst[u]
        for j in range(len(x)):
            row = gram[j]
            over_all = 0.0
            for k in range(len(x)):
                over_all += row[k] * x[k]
            total += x[j] * over_all
        for e in range(indptr[u], indptr[u + 1]):
            y = src[indices[e]]
            score = np.float32(0.0)
            for k in range(len(x)):
                score += x[k] * y[k]
            miss = np.float64(target[e]) - score
            total += confidence[e] * miss * miss - unobserved_weight * score * score
    return total
