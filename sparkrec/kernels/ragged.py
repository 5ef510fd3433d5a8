"""Rows of any length, one after the other: where they start, and moving them about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sparkrec.kernels.arrays import I64


class Ragged(NamedTuple):
    """Arrays of any length, one after the other: row i is `values[start[i] : start[i + 1]]`.

    A kernel that takes `Lists` takes it as it is.
    """

    start: I64
    """(n + 1,) from 0 to the number of values."""
    values: NDArray[Any]

    @classmethod
    def of_lengths(cls, lengths: I64, values: NDArray[Any]) -> Ragged:
        return cls(starts_of(lengths), values)

    @classmethod
    def joined(cls, parts: Sequence[Ragged]) -> Ragged:
        """The rows of all parts, of which there is one or more."""
        return cls(joined_starts([part.start for part in parts]), np.concatenate([part.values for part in parts]))

    @property
    def lengths(self) -> I64:
        return np.diff(self.start)

    @property
    def rows(self) -> I64:
        """(nnz,) the row of each value."""
        return rows_of(self.start)

    def between(self, first: int, stop: int) -> Ragged:
        """Rows [first, stop)."""
        start = self.start[first : stop + 1]
        return Ragged(start - start[0], self.values[start[0] : start[-1]])

    def keep(self, mask: NDArray[np.bool_], values: NDArray[Any]) -> Ragged:
        """Drop the values that are not in a mask.

        mask    (nnz,) which values stay
        values  (nnz,) what to have in their place
        """
        return Ragged(starts_of(mask)[self.start], values[mask])

    def take(self, order: I64) -> Ragged:
        """Rows in another order."""
        start, at = taken(self.start, order)
        return Ragged(start, self.values[at])

    def arrow(self) -> pa.ListArray:
        """The same as a list column."""
        return pa.ListArray.from_arrays(pa.array(self.start, pa.int32()), pa.array(self.values))


def starts_of(lengths: NDArray[Any]) -> I64:
    """(n + 1,) where n rows start that lie one after the other, and the last one ends."""
    start = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=start[1:])
    return start


def rows_of(start: I64) -> I64:
    """(nnz,) the row of each value."""
    return np.repeat(np.arange(len(start) - 1), np.diff(start))


def joined_starts(starts: Sequence[I64]) -> I64:
    """Where rows start once several sets of them, which start at `starts`, lie one after the other."""
    return starts_of(np.concatenate([np.zeros(0, np.int64), *map(np.diff, starts)]))


def spans(begin: I64, lengths: I64) -> tuple[I64, I64]:
    """Where each of n rows starts once they lie one after the other, (n + 1,), and the places of all their values:
    `lengths` of them from `begin` on."""
    start = starts_of(lengths)
    if len(lengths) and (lengths == lengths[0]).all():  # no counting
        return start, (begin[:, None] + np.arange(lengths[0])).ravel()
    return start, np.arange(start[-1]) + np.repeat(begin - start[:-1], lengths)


def taken(start: I64, rows: I64) -> tuple[I64, I64]:
    """Where some rows start once they lie one after the other, and the places of their values; `start` is where all
    begin."""
    return spans(start[:-1][rows], np.diff(start)[rows])
