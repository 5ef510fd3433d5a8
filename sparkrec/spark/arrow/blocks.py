"""Many rows in one: a block is one Spark row that holds the ids and arrays of many, as binary columns.

A frame of an id and array columns, three rows of it as example (`value` has two numbers a row, `seen` any number)

    user  value       seen
    4     [1., 2.]    [10, 11, 12]
    7     [3., 4.]    null
    9     [5., 6.]    [11]

becomes one row of little-endian buffers. Ids ascend, a null array is an empty one:

    user_id           [4, 7, 9]                    int64
    user_value        [1., 2., 3., 4., 5., 6.]     all rows, one after the other
    user_value_start  [0, 2, 4, 6]                 int64; row i is value[start[i] : start[i + 1]]
    user_seen         [10, 11, 12, 11]
    user_seen_start   [0, 3, 3, 4]

So Spark moves thousands of rows as one, and Python reads them as numpy views, without a copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sparkrec.kernels.arrays import I64
from sparkrec.kernels.ragged import Ragged

ArrayColumns: TypeAlias = Mapping[str, type[np.generic]]
"""Names of array columns and the dtype of their values."""


@dataclass(frozen=True)
class Block:
    """Ids and arrays of many rows."""

    ids: I64
    arrays: dict[str, Ragged]

    def __len__(self) -> int:
        return len(self.ids)

    def between(self, first: int, stop: int) -> Block:
        """Rows [first, stop)."""
        return Block(self.ids[first:stop], {name: each.between(first, stop) for name, each in self.arrays.items()})


@dataclass(frozen=True)
class PackBlocks:
    """The task that packs rows into blocks, in the columns above.

    The first column of its input is the id, those of `arrays` follow in their order. A block has at most `max_rows`
    rows, and `max_bytes` unless a single row has more. Rows that come in the same order again give the same blocks.
    """

    key: str
    """Name of the id column."""
    arrays: ArrayColumns
    max_rows: int
    max_bytes: int

    @property
    def schema(self) -> pa.Schema:
        names = [f"{self.key}_id", *(f"{self.key}_{name}{part}" for name in self.arrays for part in ("", "_start"))]
        return pa.schema([(name, pa.binary()) for name in names])

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for block in _gather(batches, self.arrays, self.max_rows, self.max_bytes):
            columns = [binary(block.ids)]
            for ragged in block.arrays.values():
                columns += [binary(ragged.values), binary(ragged.start)]
            yield pa.RecordBatch.from_arrays(columns, schema=self.schema)


def unpack(batch: pa.RecordBatch, row: int, key: str, arrays: ArrayColumns) -> Block:
    """The block in a row of a batch; its arrays are views of the batch's buffers."""
    return Block(
        view(batch, row, f"{key}_id", np.int64),
        {
            name: Ragged(view(batch, row, f"{key}_{name}_start", np.int64), view(batch, row, f"{key}_{name}", dtype))
            for name, dtype in arrays.items()
        },
    )


def first_id(batch: pa.RecordBatch, row: int, key: str) -> int:
    """The lowest id of the block in a row of a batch. No id is in two blocks of a side, so it identifies the block."""
    return int(view(batch, row, f"{key}_id", np.int64)[0])


def binary(values: NDArray[Any]) -> pa.Array:
    """One row of a binary column, without a copy."""
    data = np.ascontiguousarray(values)
    offsets = np.array([0, data.nbytes], np.int32)
    return pa.Array.from_buffers(pa.binary(), 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def view(batch: pa.RecordBatch | pa.Table, row: int, name: str, dtype: type[np.generic]) -> NDArray[Any]:
    """The array in a row of a binary column."""
    return np.frombuffer(batch.column(name)[row].as_buffer(), dtype)


def read_lists(column: pa.ListArray, dtype: type[np.generic]) -> Ragged:
    """The arrays of a list column, whose values stay where they are."""
    start = column.offsets.to_numpy().astype(np.int64)
    values = column.values.slice(start[0], start[-1] - start[0]).to_numpy(zero_copy_only=False)
    return Ragged(start - start[0], values.astype(dtype, copy=False))


def _gather(batches: Iterable[pa.RecordBatch], arrays: ArrayColumns, max_rows: int, max_bytes: int) -> Iterator[Block]:
    held: list[Block] = []
    rows = size = 0
    for batch in batches:
        source = Block(
            batch.column(0).to_numpy(zero_copy_only=False),
            {name: read_lists(batch.column(1 + at), dtype) for at, (name, dtype) in enumerate(arrays.items())},
        )
        upto = 8 * np.arange(len(source) + 1)  # bytes of the rows before each one
        for each in source.arrays.values():
            upto[1:] += np.cumsum(8 + each.values.itemsize * each.lengths)
        begin = 0
        while begin < len(source):
            end = int(np.searchsorted(upto, upto[begin] + max_bytes - size, side="right")) - 1
            end = min(end, begin + max_rows - rows, len(source))
            if end <= begin and not held:
                end = begin + 1  # more than a block should hold, but it has to go somewhere
            if end > begin:
                held.append(source.between(begin, end))
                rows, size = rows + end - begin, size + int(upto[end] - upto[begin])
                begin = end
            if begin < len(source):
                yield _join(held)
                held, rows, size = [], 0, 0
    if held:
        yield _join(held)


def _join(held: list[Block]) -> Block:
    """One block of several, ids ascending."""
    ids = np.concatenate([each.ids for each in held])
    arrays = {name: Ragged.joined([each.arrays[name] for each in held]) for name in held[0].arrays}
    if (ids[1:] > ids[:-1]).all():
        return Block(ids, arrays)
    order = np.argsort(ids, kind="stable")
    return Block(ids[order], {name: each.take(order) for name, each in arrays.items()})
