"""Whether the rows of DataFrames are few enough to be brought to the driver."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, AtomicType, BinaryType, DataType, StringType

from sparkrec.errors import ConfigError
from sparkrec.spark.platform.memory import bytes_of, driver_memory
from sparkrec.spark.platform.sources import column

SETTING = "spark.sparkrec.inPlace.maxBytes"
"""Of the session: most bytes of a plan's rows that are brought to the driver; `never`, `always`; or nothing, for a
share of the driver's memory."""
_HEAP_SHARE, _MACHINE_SHARE = 16, 64
"""Rows pass through the heap of the driver's JVM, packed, and are worked on by its Python, where ALS takes about five
times their size."""
_WIDTH = 8


def few(frames: Sequence[DataFrame]) -> bool:
    """Whether all rows of some DataFrames fit together into what SETTING allows.

    Spark's statistics are asked first, which cost nothing; as they may be wrong, rows are counted where they say yes.
    """
    if not frames:
        return False
    most = most_bytes(frames[0].sparkSession)
    if most in (0, float("inf")):
        return most > 0
    forecast = sum(_forecast(frame) for frame in frames)
    return forecast <= most and _counted(frames) <= most


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


def _forecast(frame: DataFrame) -> float:
    """Bytes by the statistics of Spark; 0 where it does not tell, as over Connect.

    Of a join Spark expects the product of both sides: so no more than what is read for it.
    """
    with suppress(AttributeError):
        plan = frame._jdf.queryExecution().optimizedPlan()
        leaves = plan.collectLeaves()
        read = sum(_size(leaves.apply(at)) for at in range(leaves.size()))
        return min(_size(plan), read)
    return 0.0


def _size(plan: Any) -> float:
    return float(plan.stats().sizeInBytes().toString())


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
