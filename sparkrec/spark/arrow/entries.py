"""Rows of a sparse matrix from its entries: what is added up, sorted and moved is arrays, not entries.

CutEntries   cut entries into pieces, one for each partition of rows
GatherRows   make rows of all pieces of a partition
GatherBlock  make of them one block of rows, as `arrow.blocks` has it
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sparkrec.kernels.als.blocking import hashed, numbered
from sparkrec.kernels.arrays import F64, I64
from sparkrec.kernels.csr import by_key, grouped
from sparkrec.kernels.ragged import Ragged
from sparkrec.spark.arrow.blocks import ArrayColumns, PackBlocks, binary
from sparkrec.spark.arrow.packed_rows import each_row, integers, joined, one_row, schema_of

ARRAYS: ArrayColumns = {"index": np.int32, "value": np.float32}
"""Of a row: its columns, ascending, and what is there."""
_CHUNK_ROWS = 1 << 20
_PIECE = schema_of(partition=pa.int64(), n=pa.int64(), row=pa.binary(), column=pa.binary(), value=pa.binary())
_ROWS = schema_of(row=pa.int64(), index=pa.list_(pa.int32()), value=pa.list_(pa.float32()))


@dataclass(frozen=True)
class CutEntries:
    """Cuts entries (row, column integers, value number; confidence float) into pieces.

    What is there is the value, times the confidence where there is one.

    keys  (n,) of the partitions, one of which a hash of the row chooses
    """

    keys: I64

    @property
    def schema(self) -> pa.Schema:
        return _PIECE

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for table in joined(batches, _CHUNK_ROWS):
            row, column = (table[name].to_numpy().astype(np.int64, copy=False) for name in ("row", "column"))
            value = table["value"].to_numpy()
            if "confidence" in table.column_names:
                value = value * table["confidence"].to_numpy()
            start, order = by_partition(row, len(self.keys))
            row, column, value = row[order], column[order], value[order].astype(np.float64, copy=False)
            for key, first, stop in partition_ranges(self.keys, start):
                yield one_row(
                    _PIECE,
                    partition=pa.array([key]),
                    n=pa.array([stop - first]),
                    row=integers(row[first:stop]),
                    column=integers(column[first:stop]),
                    value=binary(value[first:stop]),
                )


@dataclass(frozen=True)
class GatherRows:
    """Makes rows (row, index, value) of all pieces of a partition, ascending. Entries of one cell are added up."""

    @property
    def schema(self) -> pa.Schema:
        return _ROWS

    def __call__(self, group: pa.Table) -> pa.Table:
        return pa.Table.from_batches([_gathered(group)], _ROWS)


@dataclass(frozen=True)
class GatherBlock:
    """Makes one block of rows, called `name`, of all pieces of a partition."""

    name: str

    @property
    def _packing(self) -> PackBlocks:
        return PackBlocks(self.name, ARRAYS, 1 << 40, 1 << 40)

    @property
    def schema(self) -> pa.Schema:
        return self._packing.schema

    def __call__(self, group: pa.Table) -> pa.Table:
        return pa.Table.from_batches([*self._packing([_gathered(group)])], self.schema)


def by_partition(ids: I64, n: int) -> tuple[I64, I64]:
    """Group ids by hash partition.

    Returns (starts, order): `order[starts[p]:starts[p + 1]]` are the positions of the ids of partition p, in input
    order.
    """
    return by_key((hashed(ids) % n).astype(np.int32), n)


def partition_ranges(keys: I64, start: I64) -> Iterator[tuple[int, int, int]]:
    """Key, first and stop of each partition that is not empty."""
    for key, first, stop in zip(keys.tolist(), start[:-1].tolist(), start[1:].tolist(), strict=True):
        if first < stop:
            yield key, first, stop


def entries_of(group: pa.Table) -> tuple[I64, I64, F64]:
    """Rows, columns and values of the entries in all pieces of a partition."""
    pieces = [*each_row(group.to_batches())]
    row, column = (np.concatenate([piece.integers(name, piece.n) for piece in pieces]) for name in ("row", "column"))
    return row, column, np.concatenate([piece.array("value", np.float64) for piece in pieces])


def _gathered(group: pa.Table) -> pa.RecordBatch:
    row, column, value = entries_of(group)
    ids, code = numbered(row)
    columns, place = numbered(column)
    start, order = grouped(code, place, len(ids))
    code, place, value = code[order], place[order], value[order]
    first = np.ones(len(code), bool)
    first[1:] = (np.diff(code) != 0) | (np.diff(place) != 0)
    if not first.all():
        cell = np.cumsum(first) - 1
        by_value = np.lexsort((value, cell))  # one order, whatever that of the pieces: sums depend on it
        value = np.bincount(cell, weights=value[by_value]).astype(np.float64, copy=False)
        code, place = code[first], place[first]
        start = np.concatenate(([0], np.cumsum(np.bincount(code, minlength=len(ids)))))
    index = Ragged(start, columns[place].astype(np.int32))
    return pa.RecordBatch.from_arrays(
        [pa.array(ids), index.arrow(), Ragged(start, value.astype(np.float32)).arrow()], schema=_ROWS
    )
