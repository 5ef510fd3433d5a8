"""Attributes as features, in long form: numbers standardised, strings one-hot, arrays of strings multi-hot.

Each column is a field (`sparkrec.fields`), whose kind follows from the column's type, fitted to the users or items of
a dataset. Here a missing number counts as the mean, so that it has no feature; rare categories are the unknown ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, BooleanType, DataType, NumericType, StringType

from sparkrec.config import AttributeSettings, CategoricalField, FieldSettings, MultiField, NumericField
from sparkrec.errors import PrepareError, TrainError
from sparkrec.fields import FieldCode
from sparkrec.spark.arrow.packed_rows import schema_of
from sparkrec.spark.data.field_codes import fit_code, plain
from sparkrec.spark.platform.before_spark_4 import to_arrow, try_cast
from sparkrec.spark.platform.keeping import checkpointed, kept, release
from sparkrec.spark.platform.sources import column, read_columns
from sparkrec.spark.runner import RowFunction, map_rows

MAX_FEATURES = 4000
"""Of users or items; the driver holds a matrix of all features by all features."""


@dataclass(frozen=True)
class Features:
    """Features of users or items in long form: only those who are in the source, and only what is not 0."""

    rows: DataFrame
    """key long, feature int, x double; computed and kept."""
    numbers: NDArray[np.int32]
    """The features that occur, ascending. The first one, 0, is 1 for all."""


def encode(ids: DataFrame, key: str, settings: AttributeSettings) -> Features:
    """Features of the `key` (`user` or `item`) of `ids`, which has the raw ids in `<key>_id`.

    A missing number (null or NaN) is the mean, a missing category a category of its own, an empty array no category.
    Raises TrainError when the source knows none of the ids, has one of them twice, has a column of another type or an
    infinite number, or yields more than MAX_FEATURES features; InputError when it cannot be read or lacks a column.
    """
    label = f"model.{key}s.source {settings.source.label}"
    source = read_columns(ids.sparkSession, settings.source, [settings.id, *settings.columns], label)
    raw = ids.schema[f"{key}_id"].dataType
    types = [source.schema[name].dataType for name in settings.columns]
    fields = [_field(*each, settings.min_count) for each in zip(settings.columns, types, strict=True)]
    values = [_value(field).alias(str(at)) for at, field in enumerate(fields)]
    known = source.select(try_cast(column(settings.id), raw).alias("raw"), *values)
    rows = kept(ids.select(key, F.col(f"{key}_id").alias("raw")).join(known, "raw"))
    try:
        _check_ids(rows, key, label, settings.id)
        codes = _fit(rows, key, fields, types, label)
        read = rows.select(key, *[str(at) for at in range(len(codes))])
        schema = schema_of(**{key: pa.int64()}, feature=pa.int32(), x=pa.float64())
        long = checkpointed(map_rows(read, RowFunction(schema, _encoder(codes))))
    finally:
        release(rows)
    numbers = np.sort(to_arrow(long.select("feature").distinct().limit(MAX_FEATURES + 1))["feature"].to_numpy())
    if len(numbers) > MAX_FEATURES:
        widest = max(codes, key=lambda code: len(code.categories or ()))
        raise _too_wide(label, widest.name, f"{len(widest.categories or ()):,}")
    return Features(long, numbers)


def _field(name: str, kind: DataType, min_count: int) -> FieldSettings:
    """The field that a column of this type is."""
    if isinstance(kind, NumericType | BooleanType):
        return NumericField(column=name)
    if isinstance(kind, StringType):
        return CategoricalField(column=name, min_count=min_count)
    if isinstance(kind, ArrayType) and isinstance(kind.elementType, StringType):
        return MultiField(column=name, min_count=min_count, pooling="sum")
    raise TrainError(
        f"linear: attribute {name!r} is of type {kind.simpleString()}, expected numbers, booleans, strings or arrays "
        "of strings. Convert it, or leave it out."
    )


def _value(field: FieldSettings) -> Column:
    value = column(field.column)
    if isinstance(field, MultiField):  # each category once; an empty one counts
        return F.array_distinct(F.filter(value, lambda each: each.isNotNull()))
    return plain(value, field.model_dump(mode="json"))


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


def _fit(rows: DataFrame, key: str, fields: list[FieldSettings], types: list[DataType], label: str) -> list[FieldCode]:
    """Codes of the columns `0`, `1`, ... of the rows."""
    codes: list[FieldCode] = []
    first = 1
    for at, (field, kind) in enumerate(zip(fields, types, strict=True)):
        try:
            code = fit_code(rows, F.col(str(at)), field, key, kind.simpleString(), first, MAX_FEATURES)
        except PrepareError as error:
            raise TrainError(f"linear: {label}: {error}") from None
        if code.kind != "numeric" and code.categories is None:
            raise _too_wide(label, field.column, f"more than {MAX_FEATURES:,}")
        codes.append(code)
        first += code.rows
    return codes


def _too_wide(label: str, name: str, categories: str) -> TrainError:
    return TrainError(
        f"linear: {label} yields more than {MAX_FEATURES} features; the widest column is {name!r} with {categories} "
        "categories. Raise min_count, so that rare categories share a feature, or leave the column out."
    )


def _encoder(codes: list[FieldCode]) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            n = len(batch)
            parts = [(np.arange(n), np.zeros(n, np.int64), np.ones(n))]
            parts += [_entries(*each) for each in zip(codes, batch.columns[1:], strict=True)]
            of, feature, x = (np.concatenate(each) for each in zip(*parts, strict=True))
            columns = [batch.column(0).take(pa.array(of)), pa.array(feature.astype(np.int32)), pa.array(x)]
            yield pa.RecordBatch.from_arrays(columns, [batch.schema.names[0], "feature", "x"])

    return work


def _entries(code: FieldCode, values: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """(e,) of which row, which feature, and its value."""
    lengths, feature, x = code.encode(values)
    of = np.repeat(np.arange(len(values)), lengths)
    kept = np.arange(len(of))
    if code.kind == "numeric":
        kept = np.flatnonzero(feature != code.first)
    if code.kind == "multi":  # an empty array has no category, and rare ones share a feature
        missing = values.is_null().to_numpy(zero_copy_only=False)[of]
        once = np.unique(of * (code.first + code.rows) + feature, return_index=True)[1]
        kept = once[(feature != code.first)[once] | missing[once]]
    return of[kept], feature[kept], x[kept]
