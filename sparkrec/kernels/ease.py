"""EASE, item-item weights in closed form: Steck 2019, Embarrassingly Shallow Autoencoders, eq. 8."""

import numpy as np
from scipy.linalg import lapack

from sparkrec.kernels.arrays import F32

TILE = 1024
"""Side of the square tiles in which the matrix is made symmetric: what is held besides the matrix."""


class NotPositiveDefinite(ValueError):
    """The regularized gram matrix has no Cholesky factorization."""


def ease_weights_reference(gram: F32, regularization: float) -> F32:
    """`ease_weights` in float64 and in plain sight; leaves `gram` alone."""
    p = np.linalg.inv(gram.astype(np.float64) + regularization * np.eye(len(gram)))
    b = -p / np.diag(p)
    np.fill_diagonal(b, 0.0)
    return b.astype(np.float32)


def ease_weights(gram: F32, regularization: float) -> F32:
    """The weights B of score = x B with zero diagonal that minimise |X - X B|^2 + regularization |B|^2:

        P = (X'X + regularization I)^-1,   B_ij = -P_ij / P_jj,   B_jj = 0

    gram            (m, m) float32, X'X, symmetric, contiguous either way. OVERWRITTEN, after a failure, too
    regularization  > 0; published values run from 100 to 1000 and more, growing with the data
    Returns the memory of `gram`, now B, (m, m) float32: COLUMN j holds the weights that predict item j, row i
    what an interaction with item i adds to each score. Items [start, stop) for `topk` are
    weights[:, start:stop].T. Peak memory is the one matrix and some tiles: 6.7 GB for 41,000 items. Time is
    m^3 multiplications, on as many threads as BLAS has. Raises NotPositiveDefinite where float32 cannot
    factor the matrix, ValueError where it could not be done in place.
    """
    m = len(gram)
    if gram.dtype != np.float32 or gram.ndim != 2 or gram.shape != (m, m) or m == 0:
        raise ValueError(f"gram: found {gram.dtype} {gram.shape}, expected a square float32 matrix")
    if not gram.flags.writeable or not (gram.flags.c_contiguous or gram.flags.f_contiguous):
        raise ValueError("gram: expected a writable, contiguous matrix to work in; pass a copy")
    if not regularization > 0:
        raise ValueError(f"regularization: found {regularization}, expected more than 0")
    # LAPACK copies what is not Fortran-ordered. A symmetric matrix in C order is its own transpose in that.
    p = gram if gram.flags.f_contiguous else gram.T
    diagonal = np.einsum("ii->i", p)
    diagonal += np.float32(regularization)
    _, failed = lapack.spotrf(p, lower=1, clean=0, overwrite_a=1)
    if failed == 0:
        _, failed = lapack.spotri(p, lower=1, overwrite_c=1)
    if failed != 0:
        raise NotPositiveDefinite(
            f"gram + {regularization} I is not positive definite in float32, from item {failed - 1} of {m} "
            "on: raise the regularization"
        )
    if not np.isfinite(diagonal).all():
        raise NotPositiveDefinite("gram: expected finite numbers, found infinite ones or NaN")
    _mirror_lower(p)
    gram /= -diagonal.copy()
    np.einsum("ii->i", gram)[:] = 0.0
    return gram


def _mirror_lower(p: F32) -> None:
    """Copy the lower triangle of p onto the upper one, in place, tile by tile."""
    m = len(p)
    for i in range(0, m, TILE):
        rows = slice(i, min(i + TILE, m))
        for j in range(0, i, TILE):
            columns = slice(j, j + TILE)
            p[columns, rows] = p[rows, columns].T
        corner = p[rows, rows]
        corner[:] = np.tril(corner) + np.tril(corner, -1).T
