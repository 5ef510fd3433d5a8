"""Attributes as features: numbers standardised, strings one-hot, arrays of strings multi-hot.

A feature is named after its column's position: `0` the number in the first column, `0=drama` its category
drama, `0?` no value there, `0~` any of its rare categories. The feature without a name is 1 for whoever is in
the source.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, BooleanType, DataType, NumericType, StringType

from sparkrec.config import AttributeSettings
from sparkrec.errors import TrainError
from sparkrec.spark.platform.sources import column, read_columns

MAX_FEATURES = 4000
"""Of users or items; the driver holds a matrix of all features by all features."""

_FEATURES = "array<struct<feature: string, x: double>>"


@dataclass(frozen=True)
class Features:
    """Features of users or items in long form: only those who are in the source, and only what is not 0."""

    rows: DataFrame
    """key long, feature int, x double; computed and kept."""
    names: list[str]
    """By position; the first one is 1 for all."""


def encode(ids: DataFrame, key: str, settings: AttributeSettings) -> Features:
    """Features of the `key` (`user` or `item`) of `ids`, which has the raw ids in `<key>_id`.

    A missing number (null or NaN) is the mean, a missing category a category of its own. Raises TrainError
    when the source knows none of the ids, has one of them twice, or yields more than MAX_FEATURES features;
    InputError when it cannot be read or lacks a column.
    """
    label = f"model.{key}s.source {settings.source.path}"
    source = read_columns(ids.sparkSession, settings.source, [settings.id, *settings.columns], label)
    raw = ids.schema[f"{key}_id"].dataType
    positions = [str(position) for position in range(len(settings.columns))]
    known = source.select(
        column(settings.id).try_cast(raw).alias("raw"),
        *[column(name).alias(position) for name, position in zip(settings.columns, positions, strict=True)],
    )
    rows = ids.select(key, F.col(f"{key}_id").alias("raw")).join(known, "raw").persist()
    try:
        _check_ids(rows, key, label, settings.id)
        long = _long(rows, key, settings)
        if settings.min_count > 1:
            long = _merge_rare(long, key, settings.min_count)
        names = [row.feature for row in long.select("feature").distinct().limit(MAX_FEATURES + 1).collect()]
        if len(names) > MAX_FEATURES:
            raise TrainError(
                f"linear: {label} yields more than {MAX_FEATURES} features; the widest column is "
                f"{_widest(long, settings)}. Raise min_count, so that rare categories share a feature, or "
                "leave the column out."
            )
        names.sort()
        places = ids.sparkSession.createDataFrame(pa.table({"feature": names, "place": range(len(names))}))
        placed = long.join(F.broadcast(places), "feature")
        features = placed.select(key, F.col("place").cast("int").alias("feature"), "x").localCheckpoint()
    finally:
        rows.unpersist()
    return Features(features, names)


def _check_ids(rows: DataFrame, key: str, label: str, column: str) -> None:
    counted = rows.groupBy(key, "raw").agg(F.count("*").alias("times"))
    most = counted.orderBy(F.desc("times"), key).limit(1).collect()
    if not most:
        raise TrainError(
            f"linear: {label} knows none of the dataset's {key}s. Its column {column!r} has to hold the ids "
            "of the interaction log."
        )
    if most[0].times > 1:
        raise TrainError(
            f"linear: {label} has {key} {most[0].raw!r} {most[0].times} times, expected once. Remove the repeated rows."
        )


def _long(rows: DataFrame, key: str, settings: AttributeSettings) -> DataFrame:
    """One row (key, feature, x) for each feature that is not 0."""
    types = [(name, str(i), rows.schema[str(i)].dataType) for i, name in enumerate(settings.columns)]
    numbers = [position for _, position, kind in types if isinstance(kind, NumericType | BooleanType)]
    scales = _scales(rows, numbers)
    parts = [F.array(_feature(F.lit(""), F.lit(1.0)))]
    for name, position, kind in types:
        if position in scales:
            mean, spread = scales[position]
            if not (abs(mean) < float("inf") and spread < float("inf")):
                raise TrainError(
                    f"linear: attribute {name!r} of the {key}s is infinite somewhere. Correct it, or leave it out."
                )
            parts.append(_number(position, mean, spread))
        else:
            parts.append(_categories(name, position, kind))
    return rows.select(key, F.explode(F.concat(*parts)).alias("of")).select(key, "of.feature", "of.x")


def _scales(rows: DataFrame, numbers: list[str]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each number; (0, 0) where there is none."""
    if not numbers:
        return {}
    sums = [each(_finite(position)) for position in numbers for each in (F.avg, F.stddev_pop)]
    found = [value or 0.0 for value in rows.agg(*sums).collect()[0]]
    return {position: (found[2 * i], found[2 * i + 1]) for i, position in enumerate(numbers)}


def _finite(position: str) -> Column:
    """The number as a double, null where it is NaN."""
    value = F.col(position).cast("double")
    return F.when(~F.isnan(value), value)


def _number(position: str, mean: float, spread: float) -> Column:
    scaled = (_finite(position) - mean) / (spread or 1.0)
    return F.when(scaled.isNull(), _none()).otherwise(F.array(_feature(F.lit(position), scaled)))


def _categories(name: str, position: str, kind: DataType) -> Column:
    value = F.col(position)
    missing = F.array(_feature(F.lit(f"{position}?"), F.lit(1.0)))
    if isinstance(kind, StringType):
        named = F.array(value)
    elif isinstance(kind, ArrayType) and isinstance(kind.elementType, StringType):
        named = F.array_distinct(F.filter(value, lambda each: each.isNotNull()))
    else:
        raise TrainError(
            f"linear: attribute {name!r} is of type {kind.simpleString()}, expected numbers, booleans, "
            "strings or arrays of strings. Convert it, or leave it out."
        )
    found = F.transform(named, lambda each: _feature(F.concat(F.lit(f"{position}="), each), F.lit(1.0)))
    return F.when(value.isNull(), missing).otherwise(found)


def _feature(name: Column, x: Column) -> Column:
    return F.struct(name.alias("feature"), x.alias("x"))


def _none() -> Column:
    return F.array().cast(_FEATURES)


def _merge_rare(long: DataFrame, key: str, min_count: int) -> DataFrame:
    """Categories of fewer than `min_count` users or items become one feature of their column."""
    counts = long.where(F.col("feature").contains("=")).groupBy("feature").agg(F.count("*").alias("times"))
    rare = counts.where(F.col("times") < min_count).select("feature", F.lit(True).alias("rare"))
    shared = F.concat(F.substring_index("feature", "=", 1), F.lit("~"))
    name = F.when(F.col("rare"), shared).otherwise(F.col("feature"))
    merged = long.join(rare, "feature", "left").withColumn("feature", name)
    return merged.groupBy(key, "feature").agg(F.max("x").alias("x"))


def _widest(long: DataFrame, settings: AttributeSettings) -> str:
    counts = long.where(F.col("feature").contains("=")).select("feature").distinct()
    position = F.substring_index("feature", "=", 1).alias("position")
    widest = counts.groupBy(position).agg(F.count("*").alias("n")).orderBy(F.desc("n")).limit(1).collect()[0]
    return f"{settings.columns[int(widest.position)]!r} with {widest.n:,} categories"
