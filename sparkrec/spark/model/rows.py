"""Rows of a model's matrices for every user and item of a dataset, seen or not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from sparkrec import storage
from sparkrec.kernels.arrays import F32, I64
from sparkrec.spark.arrow.packed_rows import schema_of
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.runner import Rows

_LISTS = ("index", "value")


def matrix(values: pa.ListArray) -> F32:
    """(n, d) of n lists of one length."""
    flat: F32 = values.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(values), len(flat) // max(len(values), 1))


def list_column(rows: F32) -> pa.ListArray:
    """n lists of one length, of (n, d)."""
    start = pa.array(np.arange(len(rows) + 1) * rows.shape[1], pa.int32())
    return pa.ListArray.from_arrays(start, pa.array(rows.ravel()))


def dense_batch(key: str, ids: pa.Array, rows: F32) -> pa.RecordBatch:
    """(key, value) of (n, d) rows."""
    return pa.RecordBatch.from_arrays([ids, list_column(rows)], [key, "value"])


def dense_schema(key: str) -> pa.Schema:
    """Of a `dense_batch` of float32."""
    return schema_of(**{key: pa.int64()}, value=pa.list_(pa.float32()))


def read_dense(folder: str, key: str) -> tuple[I64, F32]:
    """Ids, ascending, and (n, d) rows of a model's table."""
    table = pa.concat_tables(storage.read_parquet(folder, [key, "value"]))
    order = np.argsort(table[key].to_numpy())
    return table[key].to_numpy()[order], matrix(table["value"].combine_chunks())[order]


def as_vector(row: Row, size: int) -> F32:
    """(size,) of a model row, dense or sparse."""
    if row["index"] is None:
        return np.array(row["value"], np.float32)
    vector = np.zeros(size, np.float32)
    vector[row["index"]] = row["value"]
    return vector


def dense(rows: DataFrame, key: str, *values: Column | float) -> DataFrame:
    """Dense model rows: one value of each column or constant."""
    cells = [(each if isinstance(each, Column) else F.lit(each)).cast("float") for each in values]
    return dense_vectors(rows.select(key, F.array(*cells).alias("value")), key)


def sum_of_parts(dataset: Dataset, mean: float, users: DataFrame, items: DataFrame, facts: dict[str, Any]) -> Model:
    """The model that scores a pair by mean + part of the user + part of the item.

    users, items  (user, part) and (item, part); who is not there has the part 0
    """
    part = F.coalesce("part", F.lit(0.0))
    return Model(
        users=dense(dataset.users.join(users, "user", "left"), "user", 1.0, part),
        items=dense(dataset.items.join(items, "item", "left"), "item", mean + part, 1.0),
        size=2,
        user_storage="dense",
        item_storage="dense",
        facts={"mean": mean} | facts,
    )


def dense_vectors(rows: DataFrame, key: str) -> DataFrame:
    """Dense model rows of (key, value array<float>)."""
    return rows.select(key, F.lit(None).cast("array<int>").alias("index"), "value")


@dataclass(frozen=True)
class DenseRows:
    """Model rows (key, index, value) of rows (key, value) whose values are lists of one length, or null.

    missing  what stands for null
    """

    key: str
    missing: Sequence[float] = ()

    @property
    def schema(self) -> pa.Schema:
        return schema_of(**{self.key: pa.int64()}, index=pa.list_(pa.int32()), value=pa.list_(pa.float32()))

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            value = batch.column("value")
            if value.null_count:
                value = value.fill_null(pa.scalar([*self.missing], value.type))
            index = pa.nulls(len(value), self.schema.field("index").type)
            yield pa.RecordBatch.from_arrays([batch.column(self.key), index, value], schema=self.schema)


@dataclass(frozen=True)
class Constants:
    """Model rows (key, index, value) with a number for each of `cells`: itself, or that of the column it names.

    missing  what stands for a null
    """

    key: str
    cells: tuple[str | float, ...]
    missing: float = 0.0

    @property
    def schema(self) -> pa.Schema:
        return DenseRows(self.key).schema

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = np.empty((batch.num_rows, len(self.cells)), np.float32)
            for at, cell in enumerate(self.cells):
                rows[:, at] = self._column(batch.column(cell)) if isinstance(cell, str) else cell
            index = pa.nulls(len(rows), self.schema.field("index").type)
            yield pa.RecordBatch.from_arrays([batch.column(self.key), index, list_column(rows)], schema=self.schema)

    def _column(self, values: pa.Array) -> NDArray[Any]:
        return np.asarray(values.fill_null(self.missing) if values.null_count else values)


def all_rows(ids: Rows, key: str, rows: Rows, missing: Sequence[float]) -> Rows:
    """Dense model rows of all `ids`: those of `rows` (key, value), or what stands for those that are missing."""
    return ids.select(key).joined(rows.select(key, "value"), key, every=True).map_rows(DenseRows(key, missing))


@dataclass(frozen=True)
class SparseRows:
    """Model rows (key, index, value) of such rows, of which index and value may be null: they are empty then."""

    key: str

    @property
    def schema(self) -> pa.Schema:
        return schema_of(**{self.key: pa.int64()}, index=pa.list_(pa.int32()), value=pa.list_(pa.float32()))

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            lists = [pc.fill_null(batch.column(name), pa.scalar([], self.schema.field(name).type)) for name in _LISTS]
            yield pa.RecordBatch.from_arrays([batch.column(self.key), *lists], schema=self.schema)


def sparse_rows(ids: Rows, key: str, rows: Rows) -> Rows:
    """Sparse model rows of all `ids`: those that `rows` (key, index, value) has, empty ones for the rest."""
    return ids.select(key).joined(rows.select(key, *_LISTS), key, every=True).map_rows(SparseRows(key))


def sparse(ids: DataFrame, key: str, rows: DataFrame) -> DataFrame:
    """Sparse model rows of all `ids`: those that `rows` (key, index, value) has, empty ones for the rest."""

    def present(name: str, kind: str) -> Column:
        return F.coalesce(name, F.array().cast(kind)).alias(name)

    every = ids.select(key).join(rows, key, "left")
    return every.select(key, present("index", "array<int>"), present("value", "array<float>"))


def strengths(observed: DataFrame) -> DataFrame:
    """(user, item, strength double): value times confidence, added up where a pair comes more than once."""
    return observed.groupBy("user", "item").agg(F.sum(F.col("value") * F.col("confidence")).alias("strength"))


def lists(entries: DataFrame, key: str, index: str, value: str) -> DataFrame:
    """(key, index array<int> ascending, value array<float>): one row for all `entries` of a key."""
    pair = F.struct(F.col(index).cast("int").alias("index"), F.col(value).cast("float").alias("value"))
    grouped = entries.groupBy(key).agg(F.sort_array(F.collect_list(pair)).alias("pairs"))
    return grouped.select(key, F.col("pairs.index").alias("index"), F.col("pairs.value").alias("value"))
