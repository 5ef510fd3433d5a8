"""Reading what a user points at: files or a Delta table, with errors that name the path."""

from __future__ import annotations

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from sparkrec.config import IdSource, SourceSettings
from sparkrec.errors import InputError


def read_source(spark: SparkSession, source: SourceSettings) -> DataFrame:
    """The rows of a source, lazily.

    CSV columns are strings unless `inferSchema` is among the options. Raises InputError when nothing is there.
    """
    reader = spark.read.format(source.format)
    if source.format == "csv":
        reader = reader.option("header", "true")
    for key, value in source.options.items():
        reader = reader.option(key, value)
    try:
        frame = reader.load(source.path)
        _ = frame.schema  # Connect analyses lazily
    except AnalysisException as error:
        reason = {
            "PATH_NOT_FOUND": "there is no such file or folder",
            "UNABLE_TO_INFER_SCHEMA": "there is no data in it",
        }.get(error.getCondition() or "", f"it is not readable as {source.format}")
        raise InputError(
            f"cannot read {source.path}: {reason}. Correct source.path (a file, folder or glob) or source.format."
        ) from None
    return frame


def quoted(name: str) -> str:
    """A name as Spark's SQL and schemas take it, whatever characters it has."""
    return "`" + name.replace("`", "``") + "`"


def column(name: str) -> Column:
    """A column by its exact name, dots and all."""
    return F.col(quoted(name))


def numbers(frame: DataFrame, name: str) -> Column:
    """A column of numbers, as float. Raises InputError, with some of its values, where it has another type."""
    kind = frame.schema[name].dataType
    if not isinstance(kind, T.NumericType | T.BooleanType):
        some = frame.select(column(name).cast("string")).dropna().distinct().limit(3).collect()
        raise InputError(
            f"column {name!r} is {kind.simpleString()}, such as {', '.join(repr(row[0]) for row in some) or 'null'}: "
            "expected numbers. Cast it, as by try_cast after replacing a decimal comma."
        )
    return column(name).cast("float")


def require_columns(frame: DataFrame, wanted: list[str], label: str) -> None:
    """Raise InputError naming the columns of `wanted` that `frame` lacks, and those it has."""
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise InputError(
            f"{label} has no column {', '.join(map(repr, missing))}. It has {', '.join(map(repr, frame.columns))}."
        )


def read_ids(spark: SparkSession, ids: IdSource) -> DataFrame:
    """The distinct, non-null ids of a list, in a column `id`."""
    frame = read_source(spark, ids.source)
    require_columns(frame, [ids.column], ids.source.path)
    return frame.select(column(ids.column).alias("id")).dropna().distinct()
