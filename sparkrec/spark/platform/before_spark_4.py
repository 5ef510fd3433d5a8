"""What Spark 3.5 lacks: a DataFrame as a table of Arrow and back, tasks of Arrow on groups, try_cast, schemas by DDL,
conditions of errors.

Spark 4 has them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession, types
from pyspark.sql.types import DataType, StructType

from sparkrec.errors import EnvironmentMismatch
from sparkrec.spark.platform.arrow_types import from_arrow_schema, to_arrow_schema

_IS_4 = hasattr(DataFrame, "toArrow")


def schema_of(columns: str) -> StructType:
    """The schema that a DDL of columns says."""
    return cast(StructType, StructType.fromDDL(columns) if _IS_4 else types._parse_datatype_string(columns))


def to_arrow(frame: DataFrame) -> pa.Table:
    """All rows, in the driver. Raises EnvironmentMismatch over Connect to Spark 3.5."""
    if _IS_4:
        return frame.toArrow()
    _refuse_connect(frame)
    schema = to_arrow_schema(frame.schema)
    batches: list[pa.RecordBatch] = frame._collect_as_arrow()  # type: ignore[operator]
    return pa.Table.from_batches(batches).cast(schema) if batches else schema.empty_table()


def from_arrow(spark: SparkSession, table: pa.Table) -> DataFrame:
    """A table of the driver as a DataFrame. Raises EnvironmentMismatch over Connect to Spark 3.5."""
    if _IS_4:
        return spark.createDataFrame(table)
    _refuse_connect(spark)
    schema, context = from_arrow_schema(table.schema), spark.sparkContext
    jvm: Any = context._jvm
    functions, stream = jvm.PythonSQLUtils, _ArrowStream()
    send: Any = context._serialize_to_jvm
    rows = send(table.to_batches(), stream, functions.readArrowStreamFromFile, jvm.ArrowIteratorServer)
    return DataFrame(functions.toDataFrame(rows, schema.json(), spark._jsparkSession), spark)


def condition_of(error: PySparkException) -> str | None:
    """The name of the condition that Spark gives as the cause, as PATH_NOT_FOUND."""
    named: str | None = error.getCondition() if hasattr(error, "getCondition") else error.getErrorClass()
    return named


def try_cast(values: Column, kind: DataType | str) -> Column:
    """Values of another type; null where there is none. Spark 3.5 does so unless it is told to keep to ANSI."""
    return values.try_cast(kind) if _IS_4 else values.cast(kind)


def map_groups_in_arrow(
    rows: DataFrame, key: str, task: Callable[[pa.Table], pa.Table], schema: StructType
) -> DataFrame:
    """What a task makes of all rows that have the same value in a column, group by group.

    In Spark 3.5 rows are sorted by the column for it, and move, wherever they were before.
    """
    if _IS_4:
        return rows.groupBy(key).applyInArrow(task, schema)

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for group in _runs(batches, key):
            yield from task(group).to_batches()

    return rows.repartition(key).sortWithinPartitions(key).mapInArrow(work, schema)


def _runs(batches: Iterable[pa.RecordBatch], key: str) -> Iterator[pa.Table]:
    """Rows in order of a column, a table for each of its values."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        if not batch.num_rows:
            continue
        values = batch[key]
        if waiting and waiting[-1][key][-1].as_py() != values[0].as_py():
            yield pa.Table.from_batches(waiting)
            waiting = []
        changes = pc.indices_nonzero(pc.not_equal(values[1:], values[:-1])).to_pylist()
        start = 0
        for end in (at + 1 for at in changes):
            yield pa.Table.from_batches([*waiting, batch[start:end]])
            waiting, start = [], end
        waiting.append(batch[start:])
    if waiting:
        yield pa.Table.from_batches(waiting)


def _refuse_connect(what: object) -> None:
    if not isinstance(what, DataFrame | SparkSession):  # those of Connect are classes of their own
        raise EnvironmentMismatch("over Spark Connect sparkrec needs Spark 4: with 3.5 take a classic session.")


class _ArrowStream:
    """As Spark's serializers: writes batches to a file."""

    def dump_stream(self, batches: Iterable[pa.RecordBatch], stream: Any) -> None:
        writer = None
        for batch in batches:
            writer = writer or pa.RecordBatchStreamWriter(stream, batch.schema)
            writer.write_batch(batch)
        if writer is not None:
            writer.close()
