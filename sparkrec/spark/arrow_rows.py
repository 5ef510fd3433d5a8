"""Rows whose binary columns are arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql.pandas.types import from_arrow_schema

from sparkrec.kernels.arrays import F32

Batches = Iterator[pa.RecordBatch]


def schema_of(**columns: pa.DataType) -> pa.Schema:
    """Columns by name."""
    return pa.schema(list(columns.items()))


def ddl(schema: pa.Schema) -> str:
    """A schema as Spark wants it."""
    return ", ".join(f"{field.name} {field.dataType.simpleString()}" for field in from_arrow_schema(schema))


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

    def floats(self, name: str) -> F32:
        """A column of n numbers, null if all are 1."""
        return self.array(name, np.float32) if self.has(name) else np.ones(self.n, np.float32)

    def ids(self, name: str) -> NDArray[Any]:
        """A column of n ids, of 4 or 8 bytes."""
        data = self.batch.column(name)[0].as_buffer()
        return np.frombuffer(data, np.int32 if len(data) == 4 * self.n else np.int64)


def each_row(batches: Iterable[pa.RecordBatch]) -> Iterator[ArrowRow]:
    for batch in batches:
        for at in range(batch.num_rows):
            yield ArrowRow(batch.slice(at, 1))


def rows_with(table: pa.Table, column: str) -> list[ArrowRow]:
    """The rows in which a column is not null."""
    return [*each_row(table.filter(pc.is_valid(table.column(column))).to_batches())]


def only_row(table: pa.Table, column: str) -> ArrowRow:
    """The one row in which a column is not null."""
    rows = rows_with(table, column)
    if len(rows) != 1:
        key = table.column("block")[0].as_py()
        raise RuntimeError(f"als: {column} of block {key} came {len(rows)} times, expected once")
    return rows[0]


def one_row(schema: pa.Schema, **columns: pa.Array) -> pa.RecordBatch:
    """One row; columns that are not given are null."""
    arrays = [columns[each.name] if each.name in columns else pa.nulls(1, each.type) for each in schema]
    return pa.RecordBatch.from_arrays([array.cast(each.type) for array, each in zip(arrays, schema, strict=True)],
                                      schema=schema)  # fmt: skip
