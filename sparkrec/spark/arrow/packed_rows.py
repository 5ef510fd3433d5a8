"""Rows whose binary columns are arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sparkrec.kernels.arrays import F32
from sparkrec.kernels.coding import LEVELS, coded
from sparkrec.spark.arrow.blocks import binary

WIDTHS: dict[int, type[np.integer[Any]]] = {2: np.uint16, 4: np.int32, 8: np.int64}
"""Types of packed integers by their bytes."""
Batches = Iterator[pa.RecordBatch]


def schema_of(**columns: pa.DataType) -> pa.Schema:
    """A schema of the columns in their order."""
    return pa.schema(list(columns.items()))


@dataclass(frozen=True)
class ArrowRow:
    """One row, whose binary columns are arrays."""

    batch: pa.RecordBatch

    def has(self, name: str) -> bool:
        return bool(self.batch.column(name)[0].is_valid)

    def key(self, name: str) -> int:
        """A column that is an integer."""
        return int(self.batch.column(name)[0].as_py())

    def array(self, name: str, kind: type[np.generic]) -> NDArray[Any]:
        return np.frombuffer(self.batch.column(name)[0].as_buffer(), kind)

    @property
    def n(self) -> int:
        return self.key("n")

    def floats(self, name: str, n: int) -> F32:
        """A column of n numbers, as `floats` packs them."""
        if not self.has(name):
            return np.ones(n, np.float32)
        data = self.array(name, np.uint8)
        if len(data) == 4 * n:
            return data.view(np.float32)
        decoded: F32 = data[: 4 * LEVELS].view(np.float32)[data[4 * LEVELS :]]
        return decoded

    def integers(self, name: str, n: int) -> NDArray[Any]:
        """A column of n integers, as `integers` packs them."""
        data = self.batch.column(name)[0].as_buffer()
        return np.frombuffer(data, WIDTHS[len(data) // n if n else 8])


def floats(values: F32) -> pa.Array:
    """Numbers as one row of a binary column: null if all are 1.

    Else n float32 or, if they have few values, a table of LEVELS float32 and n bytes. The length tells which.
    """
    if (values == 1).all():
        return pa.nulls(1, pa.binary())
    if 4 * LEVELS + len(values) < 4 * len(values) and (levels_and_codes := coded(values)):
        levels, codes = levels_and_codes
        return binary(np.concatenate((levels.view(np.uint8), codes)))
    return binary(values)


def integers(values: NDArray[Any]) -> pa.Array:
    """Integers as one row of a binary column: the narrowest of WIDTHS that holds them."""
    return binary(narrowest(values))


def narrowest(values: NDArray[Any]) -> NDArray[Any]:
    """The same integers, of the narrowest of WIDTHS that holds them."""
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    fits = (kind for kind in WIDTHS.values() if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
    return values.astype(next(fits), copy=False)


def each_row(batches: Iterable[pa.RecordBatch]) -> Iterator[ArrowRow]:
    for batch in batches:
        for at in range(batch.num_rows):
            yield ArrowRow(batch.slice(at, 1))


def rows_with(table: pa.Table, column: str) -> list[ArrowRow]:
    """The rows in which a column is not null, where they are: a filter would copy them."""
    return [row for row in each_row(table.to_batches()) if row.has(column)]


def only_row(table: pa.Table, column: str) -> ArrowRow:
    """The one row in which a column is not null."""
    rows = rows_with(table, column)
    if len(rows) != 1:
        key = table.column("block")[0].as_py()
        raise RuntimeError(f"als: {column} of block {key} came {len(rows)} times, expected once")
    return rows[0]


def one_row(schema: pa.Schema, **columns: pa.Array) -> pa.RecordBatch:
    """A batch of one row. Columns of the schema without a value are null."""
    arrays = [columns[field.name] if field.name in columns else pa.nulls(1, field.type) for field in schema]
    cast = [array.cast(field.type) for array, field in zip(arrays, schema, strict=True)]
    return pa.RecordBatch.from_arrays(cast, schema=schema)


def joined(batches: Iterable[pa.RecordBatch], min_rows: int) -> Iterator[pa.Table]:
    """Batches together in tables of at least `min_rows` rows; the last table has what is left."""
    held: list[pa.RecordBatch] = []
    n = 0
    for batch in batches:
        held.append(batch)
        n += batch.num_rows
        if n >= min_rows:
            yield pa.Table.from_batches(held).combine_chunks()
            held, n = [], 0
    if n:
        yield pa.Table.from_batches(held).combine_chunks()
