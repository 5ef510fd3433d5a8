"""EASE, item-item weights in closed form: Steck 2019, Embarrassingly Shallow Autoencoders, eq. 8."""

import numpy as np
from numba import njit

from sparkrec.kernels.arrays import F32, I32, I64
from sparkrec.kernels.csr import Csr, by_key

TILE = 1024
"""Rows and columns that are worked on at a time: four times so many rows are held besides the matrix."""


class NotPositiveDefinite(ValueError):
    """The regularized gram matrix has no inverse that could be trusted."""


def add_gram(gram: F32, rows: Csr) -> None:
    """gram += X'X, its lower triangle only: all that `ease_weights` reads.

    gram  (m, m) float32 in C order
    rows  X, columns in [0, m) ascending in each row
    """
    start, order = by_key(rows.indices, len(gram))
    row = np.repeat(np.arange(rows.n_rows, dtype=np.int32), np.diff(rows.indptr))
    _add_gram(gram, start, row[order], rows.values[order], rows.indptr, rows.indices, rows.values)


def ease_weights_reference(gram: F32, regularization: float) -> F32:
    """`ease_weights` in float64 and in plain sight; leaves `gram` alone."""
    p = np.linalg.inv(gram.astype(np.float64) + regularization * np.eye(len(gram)))
    b = -p / np.diag(p)
    np.fill_diagonal(b, 0.0)
    return b.astype(np.float32)


def ease_weights(gram: F32, regularization: float) -> F32:
    """The weights B of score = x B with zero diagonal that minimise |X - X B|^2 + regularization |B|^2:

        P = (X'X + regularization I)^-1,   B_ij = -P_ij / P_jj,   B_jj = 0

    gram            (m, m) float32, X'X, contiguous either way; the lower triangle in C order is read, the upper one
                    in Fortran order. OVERWRITTEN, after a failure, too
    regularization  > 0; published values run from 100 to 1000 and more, growing with the data
    Returns the memory of `gram`, now B, (m, m) float32: COLUMN j holds the weights that predict item j, row i
    what an interaction with item i adds to each score. Items [start, stop) for `topk` are
    weights[:, start:stop].T. Peak memory is the one matrix and some tiles: 7.5 GB for 41,000 items. Time is
    m^3 / 2 multiplications, on as many threads as BLAS has. Raises NotPositiveDefinite where float32 cannot
    invert the matrix, ValueError where it could not be done in place.
    """
    m = len(gram)
    if gram.dtype != np.float32 or gram.ndim != 2 or gram.shape != (m, m) or m == 0:
        raise ValueError(f"gram: found {gram.dtype} {gram.shape}, expected a square float32 matrix")
    if not gram.flags.writeable or not (gram.flags.c_contiguous or gram.flags.f_contiguous):
        raise ValueError("gram: expected a writable, contiguous matrix to work in; pass a copy")
    if not regularization > 0:
        raise ValueError(f"regularization: found {regularization}, expected more than 0")
    p = gram if gram.flags.c_contiguous else gram.T
    diagonal = np.einsum("ii->i", p)
    diagonal += np.float32(regularization)
    _sweep(p, regularization)
    if not np.isfinite(diagonal).all():
        raise NotPositiveDefinite("gram: expected finite numbers, found infinite ones or NaN")
    _mirror_lower(p)
    gram /= -diagonal.copy()
    np.einsum("ii->i", gram)[:] = 0.0
    return gram


def _sweep(a: F32, regularization: float) -> None:
    """The lower triangle of a becomes that of -a^-1, a strip of rows and columns at a time.

    The sweep operator (Goodnight 1979) by blocks: with the strip B and its pivot block D, a -= B D^-1 B' and the strip
    becomes B D^-1. LAPACK's potrf and potri do the same work, but OpenBLAS's overflow at some 40,000 rows.
    """
    m = len(a)
    for first in range(0, m, TILE):
        stop = min(first + TILE, m)
        corner = np.tril(a[first:stop, first:stop]).astype(np.float64)
        corner += np.tril(corner, -1).T
        strip = np.concatenate([a[first:stop, :first].T, corner.astype(np.float32), a[stop:, first:stop]])
        try:
            np.linalg.cholesky(corner)  # what is left of a positive definite matrix is so, too
        except np.linalg.LinAlgError:
            raise NotPositiveDefinite(
                f"gram + {regularization} I is not positive definite in float32, from items {first} to {stop - 1} of "
                f"{m} on: raise the regularization"
            ) from None
        inverse = np.linalg.inv(corner).astype(np.float32)
        swept = strip @ inverse
        for top in range(0, m, TILE):
            bottom = min(top + TILE, m)
            a[top:bottom, :bottom] -= swept[top:bottom] @ strip[:bottom].T
        a[first:stop, :first] = swept[:first].T
        a[first:stop, first:stop] = -inverse
        a[stop:, first:stop] = swept[stop:]


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


@njit(cache=True, nogil=True)
def _add_gram(gram: F32, start: I64, row: I32, value: F32, indptr: I64, indices: I32, values: F32) -> None:
    for i in range(len(start) - 1):
        sums = gram[i]
        for at in range(start[i], start[i + 1]):
            for of in range(indptr[row[at]], indptr[row[at] + 1]):
                if indices[of] > i:
                    break
                sums[indices[of]] += value[at] * values[of]
