"""Folds of a log: each row is in the one that a hash of it draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame

from sparkrec.kernels.hashing import spark_hash
from sparkrec.spark.data.sequences import micros
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.runner import Rows


def with_folds(events: DataFrame, seed: int, folds: int) -> DataFrame:
    """The rows (user, item, timestamp, others) and `fold`, from 0, which neither their order nor partitions change."""

    def plan(rows: Rows) -> DataFrame:
        return rows.map_rows(DrawFolds(rows.fields(), seed, folds)).frame()

    return carry_out("folds", plan, events)


def without_and_of(marked: DataFrame, fold: int) -> tuple[DataFrame, DataFrame]:
    """The rows of all other folds, and those of a fold."""

    def plan(rows: Rows) -> tuple[DataFrame, DataFrame]:
        names = [name for name in rows.columns if name != "fold"]
        others, own = rows.where_is_not("fold", fold), rows.where_is("fold", fold)
        return others.select(*names).frame(), own.select(*names).frame()

    return carry_out("folds", plan, marked)


@dataclass(frozen=True)
class DrawFolds:
    """Rows and the fold of each: Spark's xxhash64 of the seed, the user, the item and, where there is one, the time."""

    columns: pa.Schema
    """Of the rows."""
    seed: int
    folds: int

    @property
    def schema(self) -> pa.Schema:
        return self.columns.append(pa.field("fold", pa.int64()))

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            pair = [batch.column(name).to_numpy() for name in ("user", "item")]
            time = micros(batch.column("timestamp"))
            timed = spark_hash(self.seed, *pair, time.fill_null(0).to_numpy())
            drawn = np.where(time.is_valid(), timed, spark_hash(self.seed, *pair))
            columns = [batch.column(name) for name in self.columns.names]
            yield pa.RecordBatch.from_arrays([*columns, pa.array(np.mod(drawn, self.folds))], schema=self.schema)
