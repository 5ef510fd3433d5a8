"""The closed-form half-step of weighted alternating least squares, explicit and implicit.

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
"""

import numpy as np
from numba import njit

from sparkrec.kernels.arrays import F32, F64, I32, I64, Real, frozen
from sparkrec.kernels.csr import Csr

NOT_FINITE = "its factors, targets, confidences or regularization are not finite, or overflow float32"
NOT_POSITIVE_DEFINITE = "its matrix is not positive definite; raise the regularization"

PIVOT_FLOOR = 1e-6
"""A pivot of the Cholesky factorization below this share of its diagonal entry is float32 rounding noise."""

CHUNK = 256
"""Entries gathered at once: bounds the memory of a popular row, and keeps d x CHUNK floats near the core."""

LANES = 16
"""Chunks are padded to whole vectors of float32 with entries of weight 0."""


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
    targets: Csr, confidence: F32, src: F32, gram: F64, unobserved_weight: float, reg: F32 | F64
) -> F32:
    """`half_step` as it would be written on a blackboard; float64 throughout."""
    targets, confidence, src, gram, reg = _checked(targets, confidence, src, gram, reg)
    factors = src.astype(np.float64)
    dst = np.zeros((targets.n_rows, src.shape[1]), np.float32)
    for u in range(targets.n_rows):
        observed = slice(targets.indptr[u], targets.indptr[u + 1])
        if observed.start == observed.stop:
            continue
        y = factors[targets.indices[observed]]
        c, p = confidence[observed].astype(np.float64), targets.values[observed]
        a = gram + (y.T * (c - unobserved_weight)) @ y + reg[u] * np.eye(src.shape[1])
        b = y.T @ (c * p)
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise SingularSystem(u, NOT_FINITE)
        try:
            lower = np.linalg.cholesky(a)
        except np.linalg.LinAlgError:
            raise SingularSystem(u, NOT_POSITIVE_DEFINITE) from None
        if (np.diag(lower) ** 2 <= PIVOT_FLOOR * np.diag(a)).any():
            raise SingularSystem(u, NOT_POSITIVE_DEFINITE)
        dst[u] = np.linalg.solve(a, b)
        if not np.isfinite(dst[u]).all():
            raise SingularSystem(u, NOT_FINITE)
    return dst


def half_step(targets: Csr, confidence: F32, src: F32, gram: F64, unobserved_weight: float, reg: F32 | F64) -> F32:
    """Closed-form factors of every dst row, src factors fixed: the x_u at the top of this file.

    targets            n_dst x n_src, the value of an observed entry is its target p_ui
    confidence         (nnz,) float32, the weight c_ui of each observed entry, in the order of `targets`
    src                (n_src, d) float32
    gram               (d, d) float64, unobserved_weight * gram(src); zeros where the weight is zero
    unobserved_weight  w0, the weight of every unobserved entry
    reg                (n_dst,) float32 or float64, added to the diagonal
    Returns (n_dst, d) float32; rows without observed entries are zero, and never solved. A cell that occurs
    twice in a row counts as two observations. Sums are float32 within 256 entries and float64 beyond; the
    solution is float64.
    Raises SingularSystem naming the first row that has no trustworthy solution, ValueError and TypeError for
    arguments that do not fit together.
    """
    targets, confidence, src, gram, reg = _checked(targets, confidence, src, gram, reg)
    dst = np.zeros((targets.n_rows, src.shape[1]), np.float32)
    d = src.shape[1]
    base = np.eye((d + 3) // 4 * 4)  # room for whole 4 x 4 tiles; the padding's own block is the identity
    base[:d, :d] = gram
    failed, finite = _half_step(*targets, confidence, src, base, float(unobserved_weight), reg, dst)
    if failed >= 0:
        raise SingularSystem(failed, NOT_POSITIVE_DEFINITE if finite else NOT_FINITE)
    return dst


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


# Sums may be regrouped into vectors and fused; NaN and infinity keep their meaning.
_REGROUPED = {"reassoc", "contract", "nsz"}


@njit(cache=True, nogil=True, fastmath=_REGROUPED)
def _half_step(
    indptr: I64,
    indices: I32,
    target: F32,
    confidence: F32,
    src: F32,
    base: F64,
    unobserved_weight: float,
    reg: F64,
    dst: F32,
) -> tuple[int, bool]:
    """Fills `dst`; returns (-1, True), or the first row that failed and whether its system was finite."""
    n_dst, d = dst.shape
    padded = len(base)
    a = np.zeros((padded, padded))
    b = np.zeros(padded)
    landing = np.empty((LANES, d), np.float32)
    # Rows LANES longer than CHUNK: a power of two would send all of them to the same few cache sets.
    y = np.zeros((padded, CHUNK + LANES), np.float32)
    weighted = np.zeros((padded, CHUNK + LANES), np.float32)
    weight = np.zeros(CHUNK, np.float32)
    pull = np.zeros(CHUNK, np.float32)

    for u in range(n_dst):
        if indptr[u] == indptr[u + 1]:
            continue
        for j in range(padded):  # the lower triangle of tiles; nothing reads the rest
            for k in range(j // 4 * 4 + 4):
                a[j, k] = base[j, k]
        for j in range(d):
            a[j, j] += reg[u]
            b[j] = 0.0
        for first in range(indptr[u], indptr[u + 1], CHUNK):
            n = min(CHUNK, indptr[u + 1] - first)
            n_padded = _gather(src, indices[first : first + n], landing, y)
            for e in range(n):
                weight[e] = confidence[first + e] - unobserved_weight
                pull[e] = confidence[first + e] * target[first + e]
            for e in range(n, n_padded):
                weight[e] = 0.0
                pull[e] = 0.0
            for k in range(d):
                yk = y[k]
                weighted_k = weighted[k]
                total = np.float32(0.0)
                for e in range(n_padded):
                    weighted_k[e] = weight[e] * yk[e]
                    total += pull[e] * yk[e]
                b[k] += total
            for j in range(0, padded, 4):
                for k in range(0, j + 4, 4):
                    _add_tile(1.0, weighted, j, y, k, n_padded, a)
        if not _cholesky(a):
            return u, _all_finite(a)  # what was not finite before the factorization still is not
        _substitute(a, b)
        for k in range(d):
            dst[u, k] = b[k]
            if not np.isfinite(dst[u, k]):
                return u, False
    return -1, True


@njit(cache=True, nogil=True)
def _gather(src: F32, indices: I32, landing: F32, y: F32) -> int:
    """Put the src rows `indices` into the columns of y, then zeros up to a whole vector; returns how many.

    Sums over entries then run along contiguous memory. LANES rows land side by side first: transposing from
    there writes whole cache lines, twice as fast as column by column.
    """
    d = src.shape[1]
    n = len(indices)
    for first in range(0, n, LANES):
        for lane in range(LANES):
            if first + lane < n:
                row = src[indices[first + lane]]
                for k in range(d):
                    landing[lane, k] = row[k]
            else:
                for k in range(d):
                    landing[lane, k] = 0.0
        for k in range(d):
            for lane in range(LANES):
                y[k, first + lane] = landing[lane, k]
    return (n + LANES - 1) // LANES * LANES


@njit(cache=True, nogil=True, fastmath=_REGROUPED)
def _add_tile(sign: float, p: F32 | F64, i: int, q: F32 | F64, j: int, n: int, out: F64) -> None:
    """out[i:i+4, j:j+4] += sign * p[i:i+4, :n] @ q[j:j+4, :n].T

    Sixteen dot products at once stay in registers: eight loads for sixteen multiplications, no store inside
    the loop. Half of a symmetric matrix this way, and its factorization, took 0.8 of the time of OpenBLAS
    (gemm, potrf) at d = 64, 0.65 at d = 128, and 1.3 at d = 16.
    """
    p0, p1, p2, p3 = p[i], p[i + 1], p[i + 2], p[i + 3]
    q0, q1, q2, q3 = q[j], q[j + 1], q[j + 2], q[j + 3]
    zero = p.dtype.type(0)
    s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = zero
    for e in range(n):
        a0, a1, a2, a3 = p0[e], p1[e], p2[e], p3[e]
        b0, b1, b2, b3 = q0[e], q1[e], q2[e], q3[e]
        s00, s01, s02, s03 = s00 + a0 * b0, s01 + a0 * b1, s02 + a0 * b2, s03 + a0 * b3
        s10, s11, s12, s13 = s10 + a1 * b0, s11 + a1 * b1, s12 + a1 * b2, s13 + a1 * b3
        s20, s21, s22, s23 = s20 + a2 * b0, s21 + a2 * b1, s22 + a2 * b2, s23 + a2 * b3
        s30, s31, s32, s33 = s30 + a3 * b0, s31 + a3 * b1, s32 + a3 * b2, s33 + a3 * b3
    _add_four(out[i], j, sign * s00, sign * s01, sign * s02, sign * s03)
    _add_four(out[i + 1], j, sign * s10, sign * s11, sign * s12, sign * s13)
    _add_four(out[i + 2], j, sign * s20, sign * s21, sign * s22, sign * s23)
    _add_four(out[i + 3], j, sign * s30, sign * s31, sign * s32, sign * s33)


@njit(cache=True, nogil=True)
def _add_four(row: F64, j: int, s0: Real, s1: Real, s2: Real, s3: Real) -> None:
    row[j] += s0
    row[j + 1] += s1
    row[j + 2] += s2
    row[j + 3] += s3


@njit(cache=True, nogil=True, fastmath=_REGROUPED)
def _cholesky(a: F64) -> bool:
    """The lower triangle of `a` becomes L with L L' = a. False at the first pivot not safely positive."""
    n = len(a)
    floor = np.empty(n)
    for k in range(n):
        floor[k] = PIVOT_FLOOR * a[k, k]
    for j in range(0, n, 4):
        for i in range(j, n, 4):
            _add_tile(-1.0, a, i, a, j, j, a)
        # The panel, columns j to j + 3, now lacks only what its own columns take from one another.
        for c in range(j, j + 4):
            for e in range(j, c):
                a[c, c] -= a[c, e] * a[c, e]
            if not floor[c] < a[c, c] < np.inf:  # so that NaN fails, too
                return False
            a[c, c] = np.sqrt(a[c, c])
            for r in range(c + 1, j + 4):
                for e in range(j, c):
                    a[r, c] -= a[r, e] * a[c, e]
                a[r, c] /= a[c, c]
        l10, l20, l30 = a[j + 1, j], a[j + 2, j], a[j + 3, j]
        l21, l31, l32 = a[j + 2, j + 1], a[j + 3, j + 1], a[j + 3, j + 2]
        i0, i1, i2, i3 = 1 / a[j, j], 1 / a[j + 1, j + 1], 1 / a[j + 2, j + 2], 1 / a[j + 3, j + 3]
        for r in range(j + 4, n):
            row = a[r, j : j + 4]
            x0 = row[0] * i0
            x1 = (row[1] - x0 * l10) * i1
            x2 = (row[2] - x0 * l20 - x1 * l21) * i2
            x3 = (row[3] - x0 * l30 - x1 * l31 - x2 * l32) * i3
            row[0], row[1], row[2], row[3] = x0, x1, x2, x3
    return True


@njit(cache=True, nogil=True, fastmath=_REGROUPED)
def _substitute(lower: F64, b: F64) -> None:
    """b becomes the solution x of L L' x = b."""
    n = len(b)
    for i in range(n):
        row = lower[i]
        total = 0.0
        for e in range(i):
            total += row[e] * b[e]
        b[i] = (b[i] - total) / row[i]
    for i in range(n - 1, -1, -1):
        row = lower[i]
        b[i] /= row[i]
        for e in range(i):
            b[e] -= row[e] * b[i]


@njit(cache=True, nogil=True)
def _all_finite(a: F64) -> bool:
    for j in range(a.shape[0]):
        for k in range(a.shape[1]):
            if not np.isfinite(a[j, k]):
                return False
    return True


@njit(cache=True, nogil=True, fastmath=_REGROUPED)
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
