"""Cosine neighbours of items or users, a block of rows at a time."""

import numpy as np
from numba import njit

from sparkrec.kernels.arrays import F32, F64, I32, I64, frozen
from sparkrec.kernels.csr import Csr
from sparkrec.kernels.ragged import rows_of, starts_of
from sparkrec.kernels.retrieval.heap import empty_places, offer, offer_row, sort_best_first


def row_norms(rows: Csr) -> F64:
    """The Euclidean length of every row, (n_rows,) float64."""
    row_of_entry = rows_of(rows.indptr)
    squares = rows.values.astype(np.float64) ** 2
    return np.sqrt(np.bincount(row_of_entry, weights=squares, minlength=rows.n_rows))


def cosine_topn_reference(rows: Csr, columns: Csr, norms: F64, start: int, stop: int, n: int, shrinkage: float) -> Csr:
    """`cosine_topn` on dense matrices; `columns` only tells how many there are."""
    dense = np.zeros((rows.n_rows, columns.n_rows))
    np.add.at(dense, (rows_of(rows.indptr), rows.indices), rows.values)
    indptr, indices, values = [0], [], []
    for a in range(start, stop):
        dots = dense @ dense[a]
        neighbours = np.flatnonzero((dots != 0) & (np.arange(rows.n_rows) != a))
        similarity = (dots[neighbours] / (norms[a] * norms[neighbours] + shrinkage)).astype(np.float32)
        best = np.lexsort((neighbours, -similarity))[:n]
        indices.append(neighbours[best])
        values.append(similarity[best])
        indptr.append(indptr[-1] + len(best))
    return Csr(
        np.array(indptr, np.int64),
        np.concatenate([*indices, []]).astype(np.int32),
        np.concatenate([*values, []]).astype(np.float32),
    )


def cosine_topn(rows: Csr, columns: Csr, norms: F64, start: int, stop: int, n: int, shrinkage: float) -> Csr:
    """The n most similar rows of each row in [start, stop): a Csr over all rows, most similar first.

        similarity(a, b) = <x_a, x_b> / (|x_a| |x_b| + shrinkage)

    rows       what is compared: items over users for item neighbours, users over items for user neighbours
    columns    the transpose of all of `rows`
    norms      (n_rows,) float64, the |x_a|; see row_norms
    n          neighbours kept a row, at least 1; a row has fewer where it meets fewer others
    shrinkage  >= 0, pulls similarities that rest on little data towards zero (Bell and Koren 2007)
    A row is not its own neighbour, similarities of exactly zero are left out, negative ones are kept where
    there is room, and equal ones go by ascending row. Dot products are summed in float64, so the work is one
    multiplication for every pair of entries that share a column: a very popular column costs its length for
    each of its rows.
    """
    if n < 1:
        raise ValueError(f"n: found {n}, expected at least 1")
    if columns.nnz != rows.nnz:
        raise ValueError(f"columns: found {columns.nnz} entries, expected {rows.nnz}, as the transpose of rows")
    columns = columns.checked(rows.n_rows, "columns")
    block = rows.rows(start, stop).checked(columns.n_rows, "rows")
    norms = frozen(norms, np.float64, "norms")
    if len(norms) != rows.n_rows:
        raise ValueError(f"norms: found {len(norms)}, expected {rows.n_rows}, one a row")
    width = min(n, rows.n_rows)
    ids, similarity = empty_places(block.n_rows, width, np.int32)
    counts = _cosine_topn(*block, *columns, norms, start, float(shrinkage), ids, similarity)
    kept = np.arange(width) < counts[:, None]
    return Csr(starts_of(counts), ids[kept], similarity[kept])


@njit(cache=True, nogil=True, error_model="numpy")  # 0 / 0, where an empty row was not met, is no error
def _cosine_topn(
    indptr: I64,
    indices: I32,
    values: F32,
    column_indptr: I64,
    column_indices: I32,
    column_values: F32,
    norms: F64,
    start: int,
    shrinkage: float,
    found_ids: I32,
    found: F32,
) -> I64:
    """Fills `found_ids` and `found`, best first; returns how many of each row it filled."""
    n_rows = len(norms)
    counts = np.zeros(len(indptr) - 1, np.int64)
    dots = np.zeros(n_rows)
    similarity = np.empty(n_rows, np.float32)
    nothing = np.empty(0, np.int32)
    for r in range(len(counts)):
        a = start + r
        products = 0
        for e in range(indptr[r], indptr[r + 1]):
            value = np.float64(values[e])
            products += column_indptr[indices[e] + 1] - column_indptr[indices[e]]
            for at in range(column_indptr[indices[e]], column_indptr[indices[e] + 1]):
                dots[column_indices[at]] += value * column_values[at]
        dots[a] = 0.0
        if products < n_rows:
            # Few rows were met: walk the same entries again. A dot is cleared as it is taken, so taken once.
            for e in range(indptr[r], indptr[r + 1]):
                for at in range(column_indptr[indices[e]], column_indptr[indices[e] + 1]):
                    b = column_indices[at]
                    if dots[b] != 0.0:
                        nearness = np.float32(dots[b] / (norms[a] * norms[b] + shrinkage))
                        offer(found[r], found_ids[r], nearness, b)
                        dots[b] = 0.0
        else:
            for b in range(n_rows):
                nearness = np.float32(dots[b] / (norms[a] * norms[b] + shrinkage))
                similarity[b] = nearness if dots[b] != 0.0 else np.float32(-np.inf)
                dots[b] = 0.0
            offer_row(found[r], found_ids[r], similarity, 0, nothing)
        sort_best_first(found[r], found_ids[r])
        counts[r] = np.sum(found_ids[r] >= 0)
    return counts
