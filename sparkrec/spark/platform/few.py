"""Bringing the rows of DataFrames to the driver, where they are few enough."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import reduce
from threading import Lock
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import pyarrow as pa
import pyarrow.parquet as pq
from py4j.protocol import Py4JError
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, AtomicType, BinaryType, DataType, StringType, StructType

from sparkrec import storage
from sparkrec.errors import ConfigError
from sparkrec.spark.platform.arrow_types import from_arrow_schema, to_arrow_schema
from sparkrec.spark.platform.before_spark_4 import from_arrow, to_arrow
from sparkrec.spark.platform.conf import preferred, setting
from sparkrec.spark.platform.failures import FAILURES
from sparkrec.spark.platform.keeping import kept
from sparkrec.spark.platform.memory import bytes_of, driver_memory
from sparkrec.spark.platform.sources import column

SETTING = "spark.sparkrec.inPlace.maxBytes"
"""Of the session: most bytes of a plan's rows that are brought to the driver; `never`, `always`; or nothing, for a
share of the driver's memory."""
HEAP_SHARE, _MACHINE_SHARE = 32, 64
"""Rows pass through the heap of the driver's JVM, packed, and are worked on by its Python, where ALS takes about five
times their size: on a cluster that has to fit into what a container has beside the heap, a tenth of it."""
_WIDTH = 8
_MAKES_ROWS = re.compile(
    r"^[\s:+-]*(Join (?!LeftSemi|LeftAnti|ExistenceJoin)|Generate|Expand|Map|FlatMap|Lateral|Python)", re.M
)
"""Operators of a plan that may have more rows than they read."""
_LOCAL_RELATION = "spark.sql.execution.arrow.localRelationThreshold"
_COLUMNAR = re.compile(r"parquet|orc", re.I)
_PACKED = 4.0
"""Rows of such files take about as many times as much memory: of 20 million interactions, whose ids are long, 4.1."""
_INLINE = 1 << 20
"""Bytes of Arrow up to which rows become a part of Spark's plan. What is larger Spark keeps as it is: a plan is read,
copied and sent again for each job."""
_creating = Lock()
"""Of the session there is one, and its settings hold for all threads."""
_here: WeakKeyDictionary[DataFrame, pa.Table] = WeakKeyDictionary()
"""Rows of DataFrames that were made of them. Neither ever changes."""
_files: WeakKeyDictionary[DataFrame, tuple[tuple[str, ...], tuple[str, ...]]] = WeakKeyDictionary()
"""Folders and columns of DataFrames that `from_files` read."""
_SPARK_SCHEMA = b"org.apache.spark.sql.parquet.row.metadata"
_OPAQUE = "LogicalRDD"
_sizes: dict[int, float] = {}
"""Bytes of what Spark takes for infinite, by the number of its RDD: rows that went to it from here, or were counted."""
_READ_AT_ONCE = {
    "org.apache.spark.rdd.ParallelCollectionRDD",
    "org.apache.spark.rdd.LocalCheckpointRDD",
    "org.apache.spark.rdd.ReliableCheckpointRDD",
}
"""What rows come from that a driver made of lists, or that were computed before: to count them is cheap."""
_guessed: set[int] = set()
"""Those of `_sizes` that were counted, of rows whose lists or texts may be long."""
_UNKNOWN = float(1 << 62)
"""From here on what Spark says of a size means that it does not know."""
_TOO_LARGE = "spark.driver.maxResultSize"
"""What Spark names when it refuses to collect more than it allows."""


def frame_of(spark: SparkSession, table: pa.Table, keeps: bool = False) -> DataFrame:
    """A table as a DataFrame, whose rows `collected` knows to be here.

    keeps  whether Spark keeps the rows as it needs them, once it has read them
    """
    if table.num_rows == 0:  # Connect has no schema of an empty table
        frame = spark.createDataFrame([], from_arrow_schema(table.schema))
    else:
        frame = _created(spark, table)
    if keeps and table.nbytes > _INLINE:
        frame = kept(frame)
    _here[frame] = table
    for leaf in _leaves(frame) if table.nbytes > _INLINE else ():
        if leaf.nodeName() == _OPAQUE:
            _sizes[leaf.rdd().id()] = table.nbytes
    return frame


def from_files(spark: SparkSession, folder: str) -> DataFrame:
    """The Parquet files of a folder that nobody writes to any more; it takes no job to bring them here."""
    schema = _schema_of_files(folder)
    if schema is None:
        return spark.read.parquet(folder)  # Spark says what is not there, or finds what is
    frame = spark.read.schema(schema).parquet(folder)
    _files[frame] = (folder,), tuple(frame.columns)
    return frame


def _schema_of_files(folder: str) -> StructType | None:
    """What the first file says; None where there is none that can be read."""
    try:
        name = next(name for name in storage.files(folder) if name.endswith(".parquet"))
        filesystem, path = storage.resolve(f"{folder}/{name}")
        schema = pq.read_schema(path, filesystem=filesystem)
    except (StopIteration, OSError, pa.ArrowException):
        return None
    if written := (schema.metadata or {}).get(_SPARK_SCHEMA):
        return StructType.fromJson(json.loads(written))
    return from_arrow_schema(schema)


def _created(spark: SparkSession, table: pa.Table) -> DataFrame:
    table = table.combine_chunks()  # Spark 4.2 drops what comes after a chunk that has no rows
    with _creating, preferred(spark, {_LOCAL_RELATION: str(_INLINE)}):
        return from_arrow(spark, table)


def collected(frames: Sequence[DataFrame], fetch: bool = True) -> list[pa.Table] | None:
    """All rows of some DataFrames; None where they do not fit together into what SETTING allows.

    Spark's statistics are asked first, which costs nothing. They may be wrong: where rows can become more than are
    read, they are counted before they are collected, and what is larger than it was said to be is let go of.

    fetch  whether to bring rows here by a job; else only those are returned that are here already, or in files, and
           None if some are not
    """
    most = most_bytes(frames[0].sparkSession) if frames else 0.0
    away = [frame for frame in frames if frame not in _here]
    if most == 0 or (not fetch and any(frame not in _files for frame in away)):
        return None
    here = sum(_here[frame].nbytes for frame in frames if frame in _here)
    if most < float("inf"):
        forecasts = [_forecast(frame) for frame in away]
        if here + sum(each.bytes for each in forecasts) > most:
            return None
        unsure = [frame for frame, forecast in zip(away, forecasts, strict=True) if not forecast.is_bound]
        if unsure and here + _counted(unsure) > most:
            return None
    try:
        tables = [_here[frame] if frame in _here else _fetched(frame) for frame in frames]
    except FAILURES as error:
        if _TOO_LARGE not in str(error):
            raise
        return None
    return tables if sum(table.nbytes for table in tables) <= most else None


def folders_of(frame: DataFrame) -> tuple[str, ...] | None:
    """Folders of Parquet files that have the rows of a DataFrame; None where no files do that are known to stay."""
    return _files[frame][0] if frame in _files else None


def is_here(frame: DataFrame) -> bool:
    """Whether the rows of a DataFrame are here already."""
    return frame in _here


def narrowed(frame: DataFrame, *names: str) -> DataFrame:
    """A DataFrame with no more than it takes to bring some columns here: itself, if its rows are here already."""
    if frame in _here:
        return frame
    some = frame.select(*map(column, names))
    if frame in _files:
        _files[some] = _files[frame][0], names
    return some


def union(one: DataFrame, other: DataFrame) -> DataFrame:
    """The rows of both, columns by name. It takes no more to bring them here than it takes to bring either."""
    both = one.unionByName(other)
    if one in _here and other in _here:
        _here[both] = pa.concat_tables([_here[one], _here[other].select(_here[one].column_names)])
    elif one in _files and other in _files and {*one.columns} == {*other.columns}:
        _files[both] = _files[one][0] + _files[other][0], _files[one][1]
    return both


def is_known_to_be_empty(frame: DataFrame) -> bool:
    """Whether a DataFrame has no rows, and this is known without a job."""
    return frame in _here and _here[frame].num_rows == 0


def _fetched(frame: DataFrame) -> pa.Table:
    """The rows; without a job where they are in files, or a part of Spark's plan."""
    if frame in _files:
        folders, names = _files[frame]
        schema = to_arrow_schema(frame.schema)
        parts = [each for folder in folders for each in storage.read_parquet(folder, [*names])]
        return pa.concat_tables(each.cast(schema) for each in parts)
    leaves = _leaves(frame)
    if len(leaves) == 1 and leaves[0].nodeName() == "LocalRelation":
        plan = frame._jdf.queryExecution().optimizedPlan()
        if plan.nodeName() == "LocalRelation":
            schema = to_arrow_schema(frame.schema)
            columns = [*zip(*frame.collect(), strict=True)] or [()] * len(schema)
            arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
            return pa.Table.from_arrays(arrays, schema=schema)
    return to_arrow(frame)


def most_bytes(spark: SparkSession) -> float:
    """What SETTING allows: 0 is never. Raises ConfigError for what it cannot be."""
    said = (setting(spark, SETTING) or "").strip().lower()
    if said in ("never", "always"):
        return 0.0 if said == "never" else float("inf")
    if said:
        try:
            return bytes_of(said)
        except ValueError:
            raise ConfigError(
                f"{SETTING}: found {said!r}, expected never, always, or a number of bytes as 268435456 or 256m"
            ) from None
    heap = bytes_of(setting(spark, "spark.driver.memory") or "1g")
    return min(heap / HEAP_SHARE, driver_memory() / _MACHINE_SHARE)


class _Forecast(NamedTuple):
    bytes: float
    is_bound: bool
    """Whether there are no more rows than are read, whose size is known but for compression."""


def _forecast(frame: DataFrame) -> _Forecast:
    """By the statistics of Spark, which does not tell them over Connect.

    Of a join Spark expects the product of both sides: so no more than what is read for it. Of files it knows their
    bytes, which are not those of the rows.
    """
    if not (leaves := _leaves(frame)):
        return _Forecast(0.0, False)
    plan = frame._jdf.queryExecution().optimizedPlan()
    sizes = [_size(leaf) for leaf in leaves]
    in_files = sum(sizes)
    read = sum(size * _unpacked(leaf) for size, leaf in zip(sizes, leaves, strict=True))
    made = _size(plan) * (read / in_files if in_files else 1.0)
    guessed = any(leaf.nodeName() == _OPAQUE and leaf.rdd().id() in _guessed for leaf in leaves)
    return _Forecast(min(made, read), not guessed and not _MAKES_ROWS.search(plan.toString()))


def _leaves(frame: DataFrame) -> list[Any]:
    """What the plan of a DataFrame reads; none over Connect."""
    try:
        leaves = frame._jdf.queryExecution().optimizedPlan().collectLeaves()
    except AttributeError:
        return []
    return [leaves.apply(at) for at in range(leaves.size())]


def _size(plan: Any) -> float:
    if plan.nodeName() == _OPAQUE and (known := _sizes.get(plan.rdd().id())) is not None:
        return known
    said = float(str(plan.stats().sizeInBytes()))
    if plan.nodeName() != _OPAQUE or said < _UNKNOWN or not _sources(plan.rdd()) <= _READ_AT_ONCE:
        return said
    rdd = plan.rdd()
    _sizes[rdd.id()] = float(rdd.count() * plan.schema().defaultSize())
    if not _is_flat(plan):
        _guessed.add(rdd.id())
    return _sizes[rdd.id()]


def _unpacked(leaf: Any) -> float:
    """How many times as much room rows take once they are read."""
    try:
        packed = _COLUMNAR.search(leaf.relation().fileFormat().getClass().getName())
    except (AttributeError, Py4JError):  # it reads no files
        return 1.0
    return _PACKED if packed else 1.0


def _sources(rdd: Any) -> set[str]:
    """Classes of what an RDD reads in the end."""
    dependencies = rdd.dependencies()
    if not dependencies.size():
        return {rdd.getClass().getName()}
    return set().union(*(_sources(dependencies.apply(at).rdd()) for at in range(dependencies.size())))


def _is_flat(plan: Any) -> bool:
    """Whether all columns are numbers or the like, whose size is known."""
    kinds = [field.dataType().typeName() for field in plan.schema().fields()]
    return not {"array", "map", "struct", "string", "binary", "variant"} & {*kinds}


def _counted(frames: Sequence[DataFrame]) -> float:
    """Bytes of all rows, in one job."""
    sizes = [frame.agg(F.coalesce(F.sum(_bytes(frame)), F.lit(0)).alias("bytes")) for frame in frames]
    return float(sum(row["bytes"] for row in reduce(DataFrame.unionAll, sizes).collect()))


def _bytes(frame: DataFrame) -> Column:
    """Bytes of a row, about: 8 for each number."""
    return sum((_column_bytes(column(each.name), each.dataType) for each in frame.schema), F.lit(0))


def _column_bytes(values: Column, kind: DataType) -> Column:
    if isinstance(kind, ArrayType) and isinstance(kind.elementType, AtomicType):
        return F.coalesce(F.size(values), F.lit(0)) * _WIDTH
    if isinstance(kind, (StringType, BinaryType)):
        return F.coalesce(F.octet_length(values), F.lit(0)) + _WIDTH
    if isinstance(kind, AtomicType):
        return F.lit(_WIDTH)
    return F.octet_length(F.to_json(F.struct(values)))
