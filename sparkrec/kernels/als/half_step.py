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

from sparkrec.kernels.als import dense
from sparkrec.kernels.als.conjugate_gradient import half_step_cg
from sparkrec.kernels.als.dense import REGROUPED, minimize_nonnegative, symmetrize
from sparkrec.kernels.als.exact import CHUNK, accumulate, half_step_coordinate, half_step_exact
from sparkrec.kernels.arrays import F32, F64, I32, I64, frozen
from sparkrec.kernels.csr import Csr

NOT_FINITE = "its factors, targets, confidences or regularization are not finite, or overflow float32"
NOT_POSITIVE_DEFINITE = "its matrix is not positive definite; raise the regularization"


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
    targets, confidence, src, gram, reg = checked(targets, confidence, src, gram, reg)
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
    targets, confidence, src, gram, reg = checked(targets, confidence, src, gram, reg)
    dst = start_of(targets, src, solver, start)
    given = *targets, confidence, src
    w0 = float(unobserved_weight)
    if solver.method == "cg":
        failed, finite, loss = half_step_cg(*given, gram.astype(np.float32), w0, reg, solver.steps, dst)
    elif solver.method == "coordinate":
        failed, finite, loss = half_step_coordinate(*given, gram, w0, reg, min(solver.width, src.shape[1]), dst)
    else:
        failed, finite, loss = half_step_exact(*given, dense.padded(gram), w0, reg, solver.method == "nonnegative", dst)
    if failed >= 0:
        raise SingularSystem(failed, NOT_POSITIVE_DEFINITE if finite else NOT_FINITE)
    return dst, loss


def equations(targets: Csr, confidence: F32, src: F32, unobserved_weight: float) -> tuple[F64, F64]:
    """The sums over observed entries in A (d, d) and b (d,), float64, of a `targets` of one row.

    Those of the parts of a row add up: a row with too many entries for one task is summed in several.
    """
    d = src.shape[1]
    targets, confidence, src, *_ = checked(targets, confidence, src, np.zeros((d, d)), np.zeros(targets.n_rows))
    if targets.n_rows != 1:
        raise ValueError(f"targets: found {targets.n_rows} rows, expected 1")
    b = np.zeros(d)
    a = dense.padded(np.zeros((d, d)))  # the padding's own block is cut off below
    y, weighted = np.zeros((2, CHUNK, len(a)), np.float32)
    weight = confidence - np.float32(unobserved_weight)
    accumulate(src, 0, d, targets.indices, weight, confidence * targets.values, y, weighted, a, b)
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
    targets, confidence, src, gram, _ = checked(targets, confidence, src, gram, no_reg)
    dst = frozen(dst, np.float32, "dst", 2)
    if dst.shape != (targets.n_rows, src.shape[1]):
        raise ValueError(f"dst: found shape {dst.shape}, expected {(targets.n_rows, src.shape[1])}")
    return float(_squared_loss(*targets, confidence, dst, src, float(unobserved_weight), gram))


def checked(targets: Csr, confidence: F32, src: F32, gram: F64, reg: F32 | F64) -> tuple[Csr, F32, F32, F64, F64]:
    """Arguments of `half_step` of the types that kernels take. Raises ValueError and TypeError."""
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


def start_of(targets: Csr, src: F32, solver: Solver, start: F32 | None) -> F32:
    """(n_dst, d) float32, new, in which `solver` goes on from `start`; zero without it, and in rows without entries."""
    shape = targets.n_rows, src.shape[1]
    if not solver.needs_start:
        return np.zeros(shape, np.float32)
    if start is None or start.shape != shape:
        raise ValueError(f"start: found {None if start is None else start.shape}, expected {shape} for cg and "
                         "coordinate")  # fmt: skip
    dst: F32 = frozen(start, np.float32, "start", 2).copy()
    dst[np.diff(targets.indptr) == 0] = 0.0
    return dst


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
