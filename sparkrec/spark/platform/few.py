"""Bringing the rows of DataFrames to the driver, where they are few enough."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, AtomicType, BinaryType, DataType, StringType

from sparkrec.errors import ConfigError
from sparkrec.spark.platform.failures import FAILURES
from sparkrec.spark.platform.memory import bytes_of, driver_memory
from sparkrec.spark.platform.sources import column

SETTING = "spark.sparkrec.inPlace.maxBytes"
"""Of the session: most bytes of a plan's rows that are brought to the driver; `never`, `always`; or nothing, for a
share of the driver's memory."""
_HEAP_SHARE, _MACHINE_SHARE = 16, 64
"""Rows pass through the heap of the driver's JVM, packed, and are worked on by its Python, where ALS takes about five
times their size."""
_WIDTH = 8
_MAKES_ROWS = re.compile(
    r"^[\s:+-]*(Join (?!LeftSemi|LeftAnti|ExistenceJoin)|Generate|Expand|Map|FlatMap|Lateral|Python)", re.M
)
"""Operators of a plan that may have more rows than they read."""
_TOO_LARGE = "spark.driver.maxResultSize"
"""What Spark names when it refuses to collect more than it allows."""


def collected(frames: Sequence[DataFrame]) -> list[pa.Table] | None:
    """All rows of some DataFrames; None where they do not fit together into what SETTING allows.

    Spark's statistics are asked first, which costs nothing. They may be wrong: where rows can become more than are
    read, they are counted before they are collected, and what is larger than it was said to be is let go of.
    """
    most = most_bytes(frames[0].sparkSession) if frames else 0.0
    if most == 0:
        return None
    if most < float("inf"):
        forecasts = [_forecast(frame) for frame in frames]
        if sum(each.bytes for each in forecasts) > most:
            return None
        unsure = [frame for frame, forecast in zip(frames, forecasts, strict=True) if not forecast.is_bound]
        if unsure and _counted(unsure) > most:
            return None
    try:
        tables = [frame.toArrow() for frame in frames]
    except FAILURES as error:
        if _TOO_LARGE not in str(error):
            raise
        return None
    return tables if sum(table.nbytes for table in tables) <= most else None


def most_bytes(spark: SparkSession) -> float:
    """What SETTING allows: 0 is never. Raises ConfigError for what it cannot be."""
    said = str(spark.conf.get(SETTING, "") or "").strip().lower()
    if said in ("never", "always"):
        return 0.0 if said == "never" else float("inf")
    if said:
        try:
            return bytes_of(said)
        except ValueError:
            raise ConfigError(
                f"{SETTING}: found {said!r}, expected never, always, or a number of bytes as 268435456 or 256m"
            ) from None
    heap = bytes_of(str(spark.conf.get("spark.driver.memory", "1g")))
    return min(heap / _HEAP_SHARE, driver_memory() / _MACHINE_SHARE)


class _Forecast(NamedTuple):
    bytes: float
    is_bound: bool
    """Whether there are no more rows than are read, whose size is known but for compression."""


def _forecast(frame: DataFrame) -> _Forecast:
    """By the statistics of Spark, which does not tell them over Connect.

    Of a join Spark expects the product of both sides: so no more than what is read for it.
    """
    try:
        plan = frame._jdf.queryExecution().optimizedPlan()
    except AttributeError:
        return _Forecast(0.0, False)
    leaves = plan.collectLeaves()
    read = sum(_size(leaves.apply(at)) for at in range(leaves.size()))
    return _Forecast(min(_size(plan), read), not _MAKES_ROWS.search(plan.toString()))


def _size(plan: Any) -> float:
    return float(str(plan.stats().sizeInBytes()))


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
