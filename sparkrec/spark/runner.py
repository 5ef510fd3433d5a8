"""Tasks, and how Spark carries them out.

A task is what is done to Arrow rows. It says which columns it returns as an Arrow schema, and knows nothing of
DataFrames, partitions or Spark. There are two kinds, and a few ways to hand rows to them:

    RowTask    record batches -> record batches    map_rows    the rows of each partition
                                                   map_sorted  rows in order of a key, all rows of a key in one call
                                                   map_pairs   each row of one side with each row of the other
    GroupTask  one table -> one table              map_groups  all rows that have the same key

A task must not depend on how rows are divided among its calls, beyond what the way promises.

A plan of tasks is written for `Rows`, which are in a DataFrame (`SparkRows`) or, where they are few, in this process
(`in_place.LocalRows`): both keep the promises, so that the plan has the same result, to the bit, wherever its rows are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType
from typing_extensions import Self

from sparkrec import object_stores, storage
from sparkrec.spark.arrow.blocks import ArrayColumns, PackBlocks
from sparkrec.spark.platform.arrow_types import from_arrow_schema, from_arrow_type, to_arrow_type
from sparkrec.spark.platform.before_spark_4 import map_groups_in_arrow, to_arrow
from sparkrec.spark.platform.few import frame_of, from_files
from sparkrec.spark.platform.keeping import checkpointed, kept, release
from sparkrec.spark.platform.partitions import task_slots
from sparkrec.spark.platform.sources import column
from sparkrec.spark.platform.workers import set_modules_aside

Broadcast: TypeAlias = Literal["left", "right", "neither"]
"""The side of pairs that every task gets whole."""


_UNBOUNDED = 1 << 40


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


class Described(NamedTuple):
    """A column of numbers."""

    rows: int
    mean: float | None
    """None, as the others: there is no number."""
    deviation: float | None
    """Of the sample; None for a single number, too."""
    least: float | None
    most: float | None
    different: int
    """About how many numbers are not the same."""


class Rows(ABC):
    """Rows of a table, wherever they are: what tasks are carried out on, and the little that a plan does in between."""

    spark: SparkSession

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """Names of the columns."""

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many tasks run at once."""

    @property
    @abstractmethod
    def in_this_process(self) -> bool:
        """Whether tasks run in this process, so that what they leave in memory is found there."""

    @abstractmethod
    def kind(self, name: str) -> pa.DataType:
        """Type of a column."""

    def fields(self, *names: str) -> pa.Schema:
        """Names and types of some columns, or of all, for the schema of a task that hands them on."""
        return pa.schema([(name, self.kind(name)) for name in names or self.columns])

    @abstractmethod
    def of(self, rows: DataFrame | pa.Table) -> Self:
        """Other rows, brought to where these are."""

    @abstractmethod
    def made(self, folder: str, schema: pa.Schema, parts: Iterable[pa.Table]) -> Self:
        """Other rows, which are made here part by part; Spark reads them from a file that is written to a folder."""

    @abstractmethod
    def none(self) -> Self:
        """No rows, of the same columns."""

    @abstractmethod
    def select(self, *names: str, **renamed: str) -> Self:
        """Some columns, then others under a new name: `to=block` is the column block, called `to`."""

    @abstractmethod
    def named(self, *names: str) -> Self:
        """The same columns under other names."""

    @abstractmethod
    def filled(self, **values: pa.Scalar) -> Self:
        """The same rows with further columns, each of one value."""

    @abstractmethod
    def coalesced(self, **values: pa.Scalar) -> Self:
        """The same rows, in some columns a value instead of each null."""

    @abstractmethod
    def where_null(self, name: str) -> Self:
        """The rows that have no value in a column."""

    @abstractmethod
    def where_present(self, name: str) -> Self:
        """The rows that have a value in a column."""

    @abstractmethod
    def where_is(self, name: str, value: str | int) -> Self:
        """The rows that have this value in a column."""

    @abstractmethod
    def where_is_not(self, name: str, value: str | int) -> Self:
        """The rows that have another value in a column."""

    @abstractmethod
    def where_at_least(self, name: str, least: int) -> Self:
        """The rows that have such a number in a column."""

    @abstractmethod
    def where_below(self, name: str, bound: int) -> Self:
        """The rows that have a smaller number in a column."""

    @abstractmethod
    def where_not_finite(self, *names: str) -> Self:
        """The rows that have a null, NaN or infinity in one of some columns."""

    @abstractmethod
    def union(self, other: Self) -> Self:
        """The rows of both, columns by name; one that either lacks is null there."""

    @abstractmethod
    def counted(self, *keys: str) -> Self:
        """(keys, n): how many rows have each value of some columns that have no nulls."""

    @abstractmethod
    def joined(self, other: Self, *keys: str, every: bool = False) -> Self:
        """Each row beside the columns of that row of `other` that has the same values in all `keys`. Where there is no
        such row this one is left out, or has nulls if `every` row is to stay.

        No two rows of `other` have the same keys; a null is none.
        """

    @abstractmethod
    def only(self, other: Self, key: str) -> Self:
        """The rows whose value in `key` some row of `other` has, too."""

    @abstractmethod
    def without(self, other: Self, key: str) -> Self:
        """The rows whose value in `key` no row of `other` has."""

    @abstractmethod
    def distinct(self) -> Self:
        """The same rows, each once."""

    @abstractmethod
    def greatest(self, *keys: str) -> Self:
        """(keys, all other columns): the greatest of each column, null where all are, of the rows of each key."""

    @abstractmethod
    def least(self, *keys: str) -> Self:
        """As `greatest`, of the least of each column."""

    @abstractmethod
    def sorted(self, *keys: str) -> Self:
        """The same rows in ascending order of some columns."""

    @abstractmethod
    def described(self, *names: str) -> list[Described]:
        """What there is to know of columns of numbers."""

    @abstractmethod
    def map_rows(self, task: RowTask, whole: bool = False) -> Self:
        """Hand the rows to any number of calls of the task; to one, if they are to be whole."""

    @abstractmethod
    def map_sorted(self, key: Sequence[str], task: RowTask, then: Sequence[str] = ()) -> Self:
        """As the function of this name."""

    @abstractmethod
    def map_pairs(self, right: Self, task: RowTask, broadcast: Broadcast) -> Self:
        """As the function of this name; these rows are on the left."""

    @abstractmethod
    def map_groups(self, key: str, task: GroupTask, partitions: int | None = None) -> Self:
        """As the function of this name."""

    @abstractmethod
    def kept(self) -> Self:
        """The same rows, kept once they are read, as long as the session lasts."""

    @abstractmethod
    def computed(self) -> Self:
        """The same rows, computed once, when they are first read, and cut from their history."""

    @abstractmethod
    def held(self, key: str, partitions: int, level: StorageLevel) -> Self:
        """The same rows, computed now and kept until they are released, those of a key in one of so many partitions."""

    @abstractmethod
    def release(self) -> None:
        """Let go of what is held."""

    @abstractmethod
    def write(self, folder: str) -> None:
        """Write the rows to Parquet files, instead of what the folder has."""

    @abstractmethod
    def read(self, folder: str) -> Self:
        """Other rows: those of the Parquet files of a folder."""

    @abstractmethod
    def stored(self, folder: str) -> Self:
        """The same rows, computed once; on Spark in files of a folder, where they outlive executors."""

    @abstractmethod
    def partitioned(self, key: str, partitions: int) -> Self:
        """The same rows, those of a key in one of so many partitions."""

    @abstractmethod
    def measured(self, lists: str | None, *others: Self) -> list[tuple[int, int]]:
        """Of these rows and of others, how many there are, and how many values a column of lists has in all of them;
        None: 0, and no column is read."""

    @abstractmethod
    def count(self) -> int:
        """How many rows there are."""

    @abstractmethod
    def table(self) -> pa.Table:
        """The rows, here."""

    @abstractmethod
    def each(self) -> Iterator[dict[str, Any]]:
        """Row after row, here; not all at a time."""

    @abstractmethod
    def frame(self) -> DataFrame:
        """The rows as a DataFrame."""

    def pack(self, key: str, arrays: ArrayColumns, limits: tuple[int, int] | None) -> Self:
        """The rows in blocks, as `arrow.blocks` has them.

        key     name of the id column
        arrays  array columns, and the dtype of their values
        limits  most rows and bytes of a block; None: all are in one
        """
        task = PackBlocks(key, arrays, *(limits or (_UNBOUNDED, _UNBOUNDED)))
        return self.select(key, *arrays).map_rows(task, whole=limits is None)


class SparkRows(Rows):
    """Rows in a DataFrame."""

    def __init__(self, frame: DataFrame) -> None:
        self._frame = frame
        self.spark = frame.sparkSession

    @property
    def columns(self) -> list[str]:
        return self._frame.columns

    @property
    def slots(self) -> int:
        return task_slots(self.spark)

    @property
    def in_this_process(self) -> bool:
        return False

    def kind(self, name: str) -> pa.DataType:
        return types_of(self._frame, [name])[name]

    def of(self, rows: DataFrame | pa.Table) -> SparkRows:
        return SparkRows(rows if isinstance(rows, DataFrame) else frame_of(self.spark, rows))

    def made(self, folder: str, schema: pa.Schema, parts: Iterable[pa.Table]) -> SparkRows:
        filesystem, name = storage.resolve(folder)
        file, how = f"{name}/part-0.parquet", {"compression": "none", "use_dictionary": False}
        with object_stores.mendable(folder):
            filesystem.create_dir(name, recursive=True)
            with pq.ParquetWriter(file, schema, filesystem=filesystem, **how) as writer:
                for part in parts:
                    writer.write_table(part)
        return self.read(folder)

    def none(self) -> SparkRows:
        return SparkRows(self._frame.limit(0))

    def select(self, *names: str, **renamed: str) -> SparkRows:
        return SparkRows(self._frame.select(*names, *(F.col(old).alias(new) for new, old in renamed.items())))

    def named(self, *names: str) -> SparkRows:
        return SparkRows(self._frame.toDF(*names))

    def filled(self, **values: pa.Scalar) -> SparkRows:
        columns = {name: F.lit(each.as_py()).cast(from_arrow_type(each.type)) for name, each in values.items()}
        return SparkRows(self._frame.withColumns(columns))

    def coalesced(self, **values: pa.Scalar) -> SparkRows:
        columns = {
            name: F.coalesce(name, F.lit(each.as_py()).cast(from_arrow_type(each.type)))
            for name, each in values.items()
        }
        return SparkRows(self._frame.withColumns(columns))

    def where_null(self, name: str) -> SparkRows:
        return SparkRows(self._frame.where(F.col(name).isNull()))

    def where_present(self, name: str) -> SparkRows:
        return SparkRows(self._frame.where(F.col(name).isNotNull()))

    def where_is(self, name: str, value: str | int) -> SparkRows:
        return SparkRows(self._frame.where(F.col(name) == value))

    def where_is_not(self, name: str, value: str | int) -> SparkRows:
        return SparkRows(self._frame.where(F.col(name) != value))

    def where_at_least(self, name: str, least: int) -> SparkRows:
        return SparkRows(self._frame.where(F.col(name) >= least))

    def where_below(self, name: str, bound: int) -> SparkRows:
        return SparkRows(self._frame.where(F.col(name) < bound))

    def where_not_finite(self, *names: str) -> SparkRows:
        finite = reduce(Column.__and__, (F.abs(name) < float("inf") for name in names))
        return SparkRows(self._frame.where(~F.coalesce(finite, F.lit(False))))

    def union(self, other: SparkRows) -> SparkRows:
        return SparkRows(self._frame.unionByName(other._frame, allowMissingColumns=True))

    def counted(self, *keys: str) -> SparkRows:
        return SparkRows(self._frame.groupBy(*keys).agg(F.count("*").alias("n")))

    def joined(self, other: SparkRows, *keys: str, every: bool = False) -> SparkRows:
        return SparkRows(self._frame.join(other._frame, [*keys], "left" if every else "inner"))

    def only(self, other: SparkRows, key: str) -> SparkRows:
        return self._compared(other, key, "left_semi")

    def without(self, other: SparkRows, key: str) -> SparkRows:
        return self._compared(other, key, "left_anti")

    def _compared(self, other: SparkRows, key: str, how: str) -> SparkRows:
        # Renamed: Spark 4.2 cannot tell the columns of both sides apart where these were made of one another.
        keys = other._frame.select(F.col(key).alias("_key"))
        return SparkRows(self._frame.join(keys, F.col(key) == F.col("_key"), how))

    def distinct(self) -> SparkRows:
        return SparkRows(self._frame.distinct())

    def greatest(self, *keys: str) -> SparkRows:
        return self._folded(F.max, keys)

    def least(self, *keys: str) -> SparkRows:
        return self._folded(F.min, keys)

    def _folded(self, end: Callable[[str], Column], keys: Sequence[str]) -> SparkRows:
        others = [end(name).alias(name) for name in self.columns if name not in keys]
        return SparkRows(self._frame.groupBy(*keys).agg(*others)) if others else self.select(*keys).distinct()

    def sorted(self, *keys: str) -> SparkRows:
        return SparkRows(self._frame.orderBy(*keys))

    def described(self, *names: str) -> list[Described]:
        of_each = F.avg, F.stddev, F.min, F.max, F.approx_count_distinct
        columns = [F.struct(F.count("*"), *(what(name) for what in of_each)).alias(name) for name in names]
        return [Described(*each) for each in self._frame.agg(*columns).collect()[0]]

    def map_rows(self, task: RowTask, whole: bool = False) -> SparkRows:
        return SparkRows(map_rows(self._frame.coalesce(1) if whole else self._frame, task))

    def map_sorted(self, key: Sequence[str], task: RowTask, then: Sequence[str] = ()) -> SparkRows:
        return SparkRows(map_sorted(self._frame, key, task, then))

    def map_pairs(self, right: SparkRows, task: RowTask, broadcast: Broadcast) -> SparkRows:
        return SparkRows(map_pairs(self._frame, right._frame, task, broadcast))

    def map_groups(self, key: str, task: GroupTask, partitions: int | None = None) -> SparkRows:
        return SparkRows(map_groups(self._frame, key, task, partitions))

    def kept(self) -> SparkRows:
        return SparkRows(kept(self._frame))

    def computed(self) -> SparkRows:
        # Columns anew: Spark 4.2 fails to join what was computed with what it was computed from.
        found = checkpointed(self._frame, eager=False)
        return SparkRows(found.select(*(column(name).alias(name) for name in found.columns)))

    def held(self, key: str, partitions: int, level: StorageLevel) -> SparkRows:
        # Partitioned last, then held: who groups by the key finds its rows where they are. Not by localCheckpoint,
        # which forgets how its rows are partitioned.
        held = kept(self._frame.repartition(partitions, key), level)
        held.count()
        return SparkRows(held)

    def release(self) -> None:
        release(self._frame)

    def write(self, folder: str) -> None:
        self._frame.write.mode("overwrite").parquet(folder)

    def read(self, folder: str) -> SparkRows:
        return SparkRows(from_files(self.spark, folder))

    def stored(self, folder: str) -> SparkRows:
        self.write(folder)
        return self.read(folder)

    def partitioned(self, key: str, partitions: int) -> SparkRows:
        return SparkRows(self._frame.repartition(partitions, key))

    def measured(self, lists: str | None, *others: SparkRows) -> list[tuple[int, int]]:
        values = F.size(lists) if lists else F.lit(0)
        sizes = [F.count("*").alias("rows"), F.coalesce(F.sum(values), F.lit(0)).alias("values")]
        frames = [each._frame.agg(F.lit(at).alias("at"), *sizes) for at, each in enumerate((self, *others))]
        found = reduce(DataFrame.unionAll, frames).collect()
        return [(row["rows"], row["values"]) for row in sorted(found, key=lambda row: row["at"])]

    def count(self) -> int:
        return self._frame.count()

    def table(self) -> pa.Table:
        return to_arrow(self._frame)

    def each(self) -> Iterator[dict[str, Any]]:
        return (row.asDict() for row in self._frame.toLocalIterator())

    def frame(self) -> DataFrame:
        return self._frame


def map_rows(rows: DataFrame, task: RowTask) -> DataFrame:
    """Hand the rows of each partition to one call of the task."""
    stores = object_stores.told()

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        object_stores.be_told(stores)
        yield from task(batches)
        set_modules_aside()

    return rows.mapInArrow(work, spark_schema(task.schema))


def map_sorted(rows: DataFrame, key: Sequence[str], task: RowTask, then: Sequence[str] = ()) -> DataFrame:
    """Hand rows over in order of the columns `key`, then of others; all rows of a key go to one call of the task."""
    return map_rows(rows.repartition(*key).sortWithinPartitions(*key, *then), task)


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
    stores = object_stores.told()

    def work(group: pa.Table) -> pa.Table:  # a function: of a method, Spark counts `self` among its arguments
        object_stores.be_told(stores)
        made = task(group)
        set_modules_aside()
        return made

    return map_groups_in_arrow(rows, key, work, spark_schema(task.schema))


def pack(rows: DataFrame, key: str, arrays: ArrayColumns, max_rows: int, max_bytes: int) -> DataFrame:
    """The rows of each partition in blocks, as `arrow.blocks` has them.

    key     name of the id column
    arrays  array columns, and the dtype of their values
    """
    return map_rows(rows.select(key, *arrays), PackBlocks(key, arrays, max_rows, max_bytes))


def types_of(rows: DataFrame, names: Iterable[str]) -> dict[str, pa.DataType]:
    """The types of some columns, for the schema of a task that hands them on."""
    return {name: to_arrow_type(rows.schema[name].dataType) for name in names}


def spark_schema(schema: pa.Schema) -> StructType:
    """An Arrow schema as Spark's."""
    return from_arrow_schema(schema)
