"""What rows are known by: a batch, a list of ids, the table of features that a dataset was made with."""

from __future__ import annotations

from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from sparkrec.config import SourceSettings
from sparkrec.spark.platform.sources import column, read_columns


def row_digest(frame: DataFrame, names: list[str] | None = None) -> Column:
    """64 bits of each row, in which nulls and places count: Spark's hash passes nulls over, so that ("a", null) would
    be (null, "a").

    names  columns that count; None: all
    """
    parts = []
    for name in frame.columns if names is None else names:
        value = column(name)
        parts.append(value.isNull())
        if isinstance(frame.schema[name].dataType, T.ArrayType | T.MapType | T.StructType):  # it does the same in these
            value = F.to_json(F.struct(value), {"ignoreNullFields": "false"})
        parts.append(value)
    return F.xxhash64(*parts)


def digest_sums() -> tuple[Column, Column]:
    """What rows with a column `digest`, of `row_digest`, are known by together, whatever their order: two sums, since
    equal rows would cancel out under xor, and one sum of 64 bits is easily made to collide."""
    first, second = (F.sum(each.cast("decimal(38,0)")) for each in (F.col("digest"), F.hash("digest")))
    return first, second


def content_digest(frame: DataFrame, names: list[str] | None = None) -> dict[str, Any]:
    """The number of rows and a digest of them, whatever their order."""
    digest = frame.select(row_digest(frame, names).alias("digest"))
    rows, first, second = digest.agg(F.count("*"), *digest_sums()).collect()[0]
    return {"rows": rows, "digest": f"{first}/{second}"}


def source_digest(spark: SparkSession, setting: str, source: SourceSettings, names: list[str]) -> dict[str, Any]:
    """The `content_digest` of columns of a table that a setting names, such as `features.users`. Raises InputError when
    it cannot be read or lacks one."""
    return content_digest(read_columns(spark, source, names, f"{setting}.source {source.label}"), names)
