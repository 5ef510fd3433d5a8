"""How Spark carries out tasks.

A task is what is done to Arrow rows. It says which columns it returns as an Arrow schema, and knows nothing of
DataFrames, partitions or Spark. There are two kinds, and a few ways to hand rows to them:

    RowTask    record batches -> record batches    map_rows    the rows of each partition
                                                   map_sorted  rows in order of a key, all rows of a key in one call
                                                   map_pairs   each row of one side with each row of the other
    GroupTask  one table -> one table              map_groups  all rows that have the same key

A task must not depend on how rows are divided among its calls, beyond what the way promises. Another runner has to
keep the same promises, over Arrow tables instead of DataFrames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_type
from pyspark.sql.types import StructType

from sparkrec.spark.arrow.blocks import ArrayColumns, PackBlocks

Broadcast: TypeAlias = Literal["left", "right", "neither"]
"""The side of pairs that every task gets whole."""


class RowTask(Protocol):
    """What is done to rows that come in any number of record batches."""

    @property
    def schema(self) -> pa.Schema:
        """Columns of the result."""

    def __call__(self, batches: Iterable[pa.RecordBatch], /) -> Iterator[pa.RecordBatch]:
        """The result, in batches of any size."""


@dataclass(frozen=True)
class RowFunction:
    """A task of a function."""

    schema: pa.Schema
    function: Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]

    def __call__(self, batches: Iterable[pa.RecordBatch], /) -> Iterator[pa.RecordBatch]:
        return self.function(batches)


class GroupTask(Protocol):
    """What is done to all rows of a group."""

    @property
    def schema(self) -> pa.Schema:
        """Columns of the result."""

    def __call__(self, group: pa.Table, /) -> pa.Table:
        """The result for one group, which has at least one row."""


@dataclass(frozen=True)
class GroupFunction:
    """A task of a function."""

    schema: pa.Schema
    function: Callable[[pa.Table], pa.Table]

    def __call__(self, group: pa.Table, /) -> pa.Table:
        return self.function(group)


def map_rows(rows: DataFrame, task: RowTask) -> DataFrame:
    """Hand the rows of each partition to one call of the task."""
    return rows.mapInArrow(task, spark_schema(task.schema))


def map_sorted(rows: DataFrame, key: Sequence[str], task: RowTask) -> DataFrame:
    """Hand rows over in order of the columns `key`, all rows of a key to one call of the task."""
    return map_rows(rows.repartition(*key).sortWithinPartitions(*key), task)


def map_pairs(left: DataFrame, right: DataFrame, task: RowTask, broadcast: Broadcast) -> DataFrame:
    """Hand over every row of `left` together with every row of `right`, as rows that have the columns of both.

    Of the side that is broadcast, every call of the task gets all rows.
    """
    if broadcast == "left":
        return map_rows(right.crossJoin(F.broadcast(left)), task)
    return map_rows(left.crossJoin(F.broadcast(right) if broadcast == "right" else right), task)


def map_groups(rows: DataFrame, key: str, task: GroupTask, partitions: int | None = None) -> DataFrame:
    """Hand all rows that have the same value in the column `key` to one call of the task.

    partitions  number of partitions that the keys are hashed into; None: as many as Spark chooses
    """
    if partitions is not None:
        rows = rows.repartition(partitions, key)

    def work(group: pa.Table) -> pa.Table:  # a function: of a method, Spark counts `self` among its arguments
        return task(group)

    return rows.groupBy(key).applyInArrow(work, spark_schema(task.schema))


def pack(rows: DataFrame, key: str, arrays: ArrayColumns, max_rows: int, max_bytes: int) -> DataFrame:
    """The rows of each partition in blocks, as `arrow.blocks` has them.

    key     name of the id column
    arrays  array columns, and the dtype of their values
    """
    return map_rows(rows.select(key, *arrays), PackBlocks(key, arrays, max_rows, max_bytes))


def types_of(rows: DataFrame, names: Iterable[str]) -> dict[str, pa.DataType]:
    """The types of some columns, for the schema of a task that hands them on."""
    return {name: to_arrow_type(rows.schema[name].dataType, timezone="UTC") for name in names}


def spark_schema(schema: pa.Schema) -> StructType:
    """An Arrow schema as Spark's."""
    return from_arrow_schema(schema)
