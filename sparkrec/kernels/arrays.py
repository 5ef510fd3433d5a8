"""The array types of the kernels, and the one door through which arrays enter numba."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

Lists = tuple[NDArray[Any], NDArray[Any]]
"""Rows `(indptr, ids)` as kernels take them, a `ragged.Ragged` or a pair like it: row r is
`ids[indptr[r]:indptr[r + 1]]`, ascending unless it says otherwise."""

Real = float | np.floating[Any]
"""What numba calls a float, and numpy float32 or float64."""


class Scratch:
    """Memory that is used again and again: pages fresh from the system can cost more than what is computed in them."""

    def __init__(self) -> None:
        self._held: dict[str, F32] = {}

    def zeros(self, name: str, n: int, d: int) -> F32:
        """(n, d) float32, until the next call of that name."""
        if name not in self._held or len(self._held[name]) < n * d:
            self._held[name] = np.empty(n * d * 5 // 4, np.float32)
        found = self._held[name][: n * d].reshape(n, d)
        found[:] = 0.0
        return found


def frozen(array: NDArray[Any], dtype: type[np.generic], name: str, ndim: int = 1) -> NDArray[Any]:
    """`array` as `dtype`, read-only, aligned and C-contiguous: a view, or a copy where it has to be.

    numba compiles a function anew for every mix of read-only, misaligned and strided arguments. Freezing all
    of them leaves one signature a kernel, so one compilation, whoever owns the memory. Raises TypeError where
    the dtype would lose something (int64 ids into int32) and ValueError where the number of dimensions is not
    `ndim`.
    """
    if array.ndim != ndim:
        raise ValueError(f"{name}: found {array.ndim} dimensions, expected {ndim}")
    flags = array.flags
    if array.dtype == dtype and flags.c_contiguous and flags.aligned and not flags.writeable:
        return array
    if not np.can_cast(array.dtype, dtype, "safe"):
        raise TypeError(f"{name}: found {array.dtype}, expected {np.dtype(dtype)}; convert it where its range is known")
    view = np.require(array, dtype, ["C", "A"]).view()
    view.flags.writeable = False
    return view


def checked_lists(lists: Lists, n_rows: int, name: str, dtype: type[np.generic] = np.int32) -> Lists:
    """`lists` frozen as (int64 indptr, `dtype` ids), sure to be `n_rows` strictly ascending ones.

    Raises ValueError naming the first row that is not.
    """
    indptr = frozen(lists[0], np.int64, f"{name} indptr")
    ids = frozen(lists[1], dtype, f"{name} ids")
    check_indptr(indptr, len(ids), name)
    if len(indptr) != n_rows + 1:
        raise ValueError(f"{name}: found {len(indptr) - 1} rows, expected {n_rows}")
    if len(ids) > 1:
        falls = ids[1:] <= ids[:-1]
        starts = indptr[1:-1]
        # The step into a row's first id is a step between rows: it may go down.
        falls[starts[(starts > 0) & (starts < len(ids))] - 1] = False
        if falls.any():
            row = int(np.searchsorted(indptr, int(np.argmax(falls)), side="right")) - 1
            raise ValueError(f"{name}: the ids of row {row} are not strictly ascending; sort them and drop repeats")
    return indptr, ids


def check_indptr(indptr: I64, length: int, name: str) -> None:
    """Raises ValueError unless `indptr` starts at 0, never falls, and ends at `length`."""
    if len(indptr) == 0 or indptr[0] != 0 or indptr[-1] != length or (np.diff(indptr) < 0).any():
        raise ValueError(f"{name}: indptr must start at 0, never fall and end at {length}; found {_ends(indptr)}")


def check_range(ids: NDArray[Any], upper: int, name: str) -> None:
    """Raises ValueError unless every id is in [0, upper): past the end, numba would read foreign memory."""
    if len(ids) and (ids.min() < 0 or ids.max() >= upper):
        raise ValueError(f"{name}: found {ids.min()} to {ids.max()}, expected ids in [0, {upper})")


def _ends(indptr: I64) -> str:
    return "an empty array" if len(indptr) == 0 else f"{indptr[0]} .. {indptr[-1]} in {len(indptr)} entries"
