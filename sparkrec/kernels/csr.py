"""Sparse rows: the one sparse format of the kernels."""

from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sparkrec.kernels.arrays import F32, I32, I64, check_indptr, check_range, frozen

Storage: TypeAlias = Literal["dense", "sparse"]
"""How the rows of a table are stored: as a matrix (n, s) float32, or as a Csr."""


class Csr(NamedTuple):
    """Compressed sparse rows: row r has columns `indices[indptr[r]:indptr[r + 1]]`, `values` beside them.

    indptr   (n_rows + 1,) int64, from 0 to nnz
    indices  (nnz,) int32
    values   (nnz,) float32

    The rows {0: 5., 2: 1.}, {}, {1: 3.} are indptr [0, 2, 2, 3], indices [0, 2, 1], values [5., 1., 3.].
    The number of columns is not part of it: who reads a Csr knows what its columns point to.
    """

    indptr: I64
    indices: I32
    values: F32

    @property
    def n_rows(self) -> int:
        return len(self.indptr) - 1

    @property
    def nnz(self) -> int:
        return len(self.indices)

    @classmethod
    def from_pairs(cls, rows: NDArray[Any], columns: NDArray[Any], values: NDArray[Any], n_rows: int) -> "Csr":
        """Entries (row, column, value), sorted by row, then column. Repeated cells stay, in their order.

        rows, columns  (nnz,) integers; rows in [0, n_rows), columns in [0, 2**31)
        values         (nnz,), rounded to float32
        Raises ValueError where lengths differ or an index is out of range. Costs two counting sorts: time and
        memory grow with nnz + n_rows + max(columns).
        """
        if not len(rows) == len(columns) == len(values):
            raise ValueError(
                f"rows, columns and values: found {len(rows)}, {len(columns)} and {len(values)} entries, "
                "expected as many of each"
            )
        frozen_rows = frozen(rows, np.int64, "rows")
        wide_columns = frozen(columns, np.int64, "columns")
        check_range(frozen_rows, n_rows, "rows")
        check_range(wide_columns, 2**31, "columns")
        frozen_columns = frozen(wide_columns.astype(np.int32), np.int32, "columns")
        indptr, order = grouped(frozen_rows.astype(np.int32), frozen_columns, n_rows)
        return cls(indptr, frozen_columns[order], values[order].astype(np.float32, copy=False))

    def rows(self, start: int, stop: int) -> "Csr":
        """Rows [start, stop) as a Csr of their own; indices and values are views."""
        if not 0 <= start <= stop <= self.n_rows:
            raise ValueError(f"rows [{start}, {stop}): expected a range inside [0, {self.n_rows})")
        first, last = self.indptr[start], self.indptr[stop]
        return Csr(self.indptr[start : stop + 1] - first, self.indices[first:last], self.values[first:last])

    def checked(self, n_columns: int, name: str) -> "Csr":
        """This Csr frozen for numba, its parts sure to fit together and its columns to be in [0, n_columns).

        Raises ValueError or TypeError with `name`, what was found and what was expected.
        """
        indptr = frozen(self.indptr, np.int64, f"{name} indptr")
        indices = frozen(self.indices, np.int32, f"{name} indices")
        values = frozen(self.values, np.float32, f"{name} values")
        check_indptr(indptr, len(indices), name)
        if len(values) != len(indices):
            raise ValueError(f"{name}: found {len(values)} values, expected one for each of {len(indices)} indices")
        check_range(indices, n_columns, f"{name} indices")
        return Csr(indptr, indices, values)


def located(ids: I64, ascending: I64) -> tuple[I64, NDArray[np.bool_]]:
    """Where each of n ids is among different ascending ones, and whether it is there at all."""
    at = np.searchsorted(ascending, ids)
    if len(ascending) == 0:
        return at, np.zeros(len(ids), bool)
    return at, ascending[np.minimum(at, len(ascending) - 1)] == ids


def by_key(keys: I32, n_keys: int) -> tuple[I64, I64]:
    """Where the entries of each key start, (n_keys + 1,), and the entries in order of their keys, then as they came.

    keys  (n,) int32 in [0, n_keys), which the caller has checked
    """
    return _counting_order(frozen(keys, np.int32, "keys"), n_keys, np.arange(len(keys)))


def distinct(ids: I64 | I32, n_ids: int, name: str = "ids") -> tuple[I64, I32]:
    """The different ids, ascending (u,), and which of them each one is (n,).

    ids  (n,) integers. Raises ValueError, with `name`, where one is not in [0, n_ids).
    """
    found, _, place = distinct_in_parts(ids, np.array([0, len(ids)]), n_ids, name)
    return found, place


def distinct_in_parts(ids: I64 | I32, starts: I64, n_ids: int, name: str = "ids") -> tuple[I64, I64, I32]:
    """The different ids of each part, ascending (u,), where those of a part begin (p + 1,), and which of its part's
    each id is (n,).

    starts  (p + 1,) where the parts of ids begin, from 0 to n
    """
    if n_ids > 16 * len(ids) // max(len(starts) - 1, 1) + 1024:  # counting would cost more than comparing
        check_range(ids, n_ids, name)
        parts = [np.unique(ids[a:b], return_inverse=True) for a, b in pairwise(starts.tolist())]
        bounds = np.cumsum([0, *(len(keys) for keys, _ in parts)])
        found, place = (np.concatenate(each) for each in zip(*parts, strict=True))
        return found.astype(np.int64), bounds, place.astype(np.int32)
    ids = frozen(ids, np.int32 if ids.dtype == np.int32 else np.int64, name)
    found, bounds, place = _distinct(ids, frozen(starts, np.int64, "starts"), n_ids)
    if bounds[-1] < 0:
        check_range(ids, n_ids, name)
    return found[: bounds[-1]], bounds, place


def grouped(rows: I32, columns: I32, n_rows: int) -> tuple[I64, I64]:
    """indptr (n_rows + 1,) of entries grouped by row, and their order: by row, then column, then as they came.

    rows, columns  (nnz,) int32 in [0, n_rows) and [0, 2**31), which the caller has checked
    """
    rows, columns = frozen(rows, np.int32, "rows"), frozen(columns, np.int32, "columns")
    n_columns = int(columns.max()) + 1 if len(columns) else 0
    # Grouping by row what is already in column order leaves the columns ascending inside each row.
    _, by_column = by_key(columns, n_columns)
    return _counting_order(rows, n_rows, by_column)


@njit(cache=True, nogil=True)
def latest(start: I64, since: I64, items: I64, timestamps: I64) -> I64:
    """The last version of each item that is not later than its time; the first one holds always."""
    found = np.empty(len(items), np.int64)
    for at in range(len(items)):
        first, stop = start[items[at]], start[items[at] + 1]
        while stop - first > 1:
            middle = (first + stop) // 2
            if since[middle] <= timestamps[at]:
                first = middle
            else:
                stop = middle
        found[at] = first
    return found


@njit(cache=True, nogil=True)
def _counting_order(keys: I32, n_keys: int, entries: I64) -> tuple[I64, I64]:
    """Where each key's entries start, and `entries` sorted by key, equal keys in their order."""
    start = np.zeros(n_keys + 1, np.int64)
    for key in keys:
        start[key + 1] += 1
    for key in range(n_keys):
        start[key + 1] += start[key]
    place = start[:-1].copy()
    order = np.empty(len(keys), np.int64)
    for entry in entries:
        order[place[keys[entry]]] = entry
        place[keys[entry]] += 1
    return start, order


@njit(cache=True, nogil=True)
def _distinct(ids: I64 | I32, starts: I64, n_ids: int) -> tuple[I64, I64, I32]:
    """The last bound is -1 where an id is out of range."""
    found, place = np.empty(len(ids) + 1, np.int64), np.empty(len(ids), np.int32)
    bounds, place_of = np.zeros(len(starts), np.int64), np.empty(n_ids, np.int32)
    for part in range(len(starts) - 1):
        place_of[:] = 0
        for at in range(starts[part], starts[part + 1]):
            key = ids[at]
            if not 0 <= key < n_ids:
                bounds[-1] = -1
                return found, bounds, place
            place_of[key] = 1
        first, n = bounds[part], 0
        for key in range(n_ids):  # without a branch, which would be predicted wrongly half of the time
            there = place_of[key]
            found[first + n], place_of[key] = key, n
            n += there
        for at in range(starts[part], starts[part + 1]):
            place[at] = place_of[ids[at]]
        bounds[part + 1] = first + n
    return found, bounds, place
