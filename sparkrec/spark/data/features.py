"""Features on Spark: fitting the codes of fields to the train rows of a dataset, joining them in time, encoding.

Fields are fitted once, by `prepare`, and kept with the dataset as the tables `fields` and `vocabulary`. Everything that
is scored later is encoded by them, in `encode`, which refuses columns that are missing or of another type.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from sparkrec import fields, storage
from sparkrec.config import CategoricalField, FeatureSettings, FieldSettings, MultiField, SideFeatures
from sparkrec.errors import InputError, PrepareError
from sparkrec.fields import FieldCode, FieldCodes
from sparkrec.spark.arrow.packed_rows import schema_of
from sparkrec.spark.data.field_codes import fit_code, plain
from sparkrec.spark.platform.before_spark_4 import try_cast
from sparkrec.spark.platform.sources import column, read_columns
from sparkrec.spark.runner import RowFunction, map_rows, types_of

log = logging.getLogger(__name__)

ENTRIES = {"rows": pa.binary(), "weights": pa.binary()}
"""Columns that `encode` adds."""


def nothing() -> list[Column]:
    """`ENTRIES` of which there are none."""
    return [F.lit(b"").alias(name) for name in ("rows", "weights")]


def fit(train: DataFrame, settings: FeatureSettings) -> FieldCodes:
    """Codes of all fields, from the rows of interactions to train on, joined with what is known of users and items.

    train  columns as `joined` makes them

    Raises PrepareError for a column that is null everywhere or of a type that its kind cannot read.
    """
    made: list[FieldCode] = []
    for side, wanted in _sides(settings):
        if not wanted:
            continue
        rows = train if side == "context" else train.dropDuplicates([f"{side}_id", f"{side}_since"])
        for field in wanted:
            first = made[-1].first + made[-1].rows if made else 0
            made.append(_fit(rows, side, field, first, settings.max_categories))
    return FieldCodes(tuple(made))


def _sides(settings: FeatureSettings) -> list[tuple[str, list[FieldSettings]]]:
    """In the order of `fields.SIDES`."""
    users, items = settings.users, settings.items
    return [
        ("user", users.fields if users else []),
        ("context", settings.context),
        ("item", items.fields if items else []),
    ]


def _fit(rows: DataFrame, side: str, settings: FieldSettings, first: int, most: int) -> FieldCode:
    kind = _type(rows, side, settings.column)
    _check_type(settings, side, kind)
    value = plain(column(side)[settings.column], settings.model_dump(mode="json"))
    n, known = rows.agg(F.count("*"), F.count(value)).collect()[0]
    if not known:
        raise PrepareError(
            f"feature {settings.title!r}: column {settings.column!r} of the {side} is null in all {n:,} train rows. "
            "Mend the source, or leave the field out."
        )
    code = fit_code(rows, value, settings, side, kind, first, most)
    if (
        isinstance(settings, CategoricalField | MultiField)
        and settings.hash_buckets is None
        and code.categories is None
    ):
        log.warning(
            "feature %r has more than %s categories: they are hashed into so many buckets. Say hash_buckets, or raise "
            "min_count or max_categories.",
            settings.title,
            f"{most:,}",
        )
    return code


def _check_type(settings: FieldSettings, side: str, kind: str) -> None:
    expected = {
        "categorical": "a string, integer or boolean",
        "multi": "an array of strings or integers, or a string with a separator",
        "numeric": "a number",
        "date": "a timestamp or date",
    }[settings.kind]
    plain = kind in ("string", "boolean", "tinyint", "smallint", "int", "bigint")
    number = kind in ("tinyint", "smallint", "int", "bigint", "float", "double", "boolean") or "decimal" in kind
    lists = kind in ("array<string>", "array<int>", "array<bigint>")
    fits = {
        "categorical": plain,
        "multi": kind == "string" if isinstance(settings, MultiField) and settings.separator else lists,
        "numeric": number,
        "date": kind in ("timestamp", "timestamp_ntz", "date"),
    }[settings.kind]
    if not fits:
        raise PrepareError(
            f"feature {settings.title!r}: column {settings.column!r} of the {side} is {kind}, and {settings.kind} "
            f"takes {expected}. Convert it, or choose another kind."
        )


def _type(frame: DataFrame, side: str, name: str) -> str:
    struct = frame.schema[side].dataType
    assert isinstance(struct, StructType)
    return struct[name].dataType.simpleString()


# --- joining ------------------------------------------------------------------------------------------------------


def joined(events: DataFrame, settings: FeatureSettings, spark: SparkSession) -> DataFrame:
    """Events with structs `context`, `user` and `item` of the columns that fields read, as far as there are such.

    events  user_id, item_id, timestamp and `context`, a struct

    Beside `user` and `item`: `user_since` and `item_since`, from when on what was joined holds.
    """
    for side, features in (("user", settings.users), ("item", settings.items)):
        if features is not None:
            versions = side_rows(spark, features, side, events.schema[f"{side}_id"].dataType.simpleString())
            events = as_of(events, versions, side) if features.timestamp else _with(events, versions, side)
    return events


def columns_of(settings: SideFeatures) -> list[str]:
    """What is read of a table of users or items."""
    names = [settings.id, settings.timestamp, *(field.column for field in settings.fields)]
    return [name for name in dict.fromkeys(names) if name is not None]


def side_rows(spark: SparkSession, settings: SideFeatures, side: str, kind: str) -> DataFrame:
    """(<side>_id, <side>_since, <side> struct): the rows of a table of users or items, ids as the dataset types them.

    Raises PrepareError when a row comes twice; InputError when it cannot be read or lacks a column.
    """
    label = f"features.{side}s.source {settings.source.label}"
    names = list(dict.fromkeys(field.column for field in settings.fields))
    source = read_columns(spark, settings.source, columns_of(settings), label)
    since = column(settings.timestamp).cast("timestamp") if settings.timestamp else F.lit(None).cast("timestamp")
    key, at = f"{side}_id", f"{side}_since"
    rows = source.select(
        try_cast(column(settings.id), kind).alias(key),
        since.alias(at),
        F.struct(*[column(name).alias(name) for name in names]).alias(side),
    ).where(F.col(key).isNotNull())
    again = rows.groupBy(key, at).count().where("count > 1").orderBy(key).head()
    if again is not None:
        when = f" at {again[at]}" if settings.timestamp else ""
        raise PrepareError(
            f"{label} has {side} {again[key]!r} {again['count']} times{when}, expected once. Remove the repeated rows"
            + ("." if settings.timestamp else ", or say which column is their timestamp.")
        )
    return rows


def _with(events: DataFrame, rows: DataFrame, side: str) -> DataFrame:
    return events.join(rows, f"{side}_id", "left")


def as_of(events: DataFrame, versions: DataFrame, side: str) -> DataFrame:
    """Each event with the latest version of its user or item that is not later than it; null where there is none."""
    key, since = f"{side}_id", f"{side}_since"
    event = F.struct(*[F.col(name) for name in events.columns if name != key])
    kept = F.struct(since, side)

    def typed(frame: DataFrame, name: str) -> Column:
        return F.lit(None).cast(frame.select(event if name == "event" else kept).schema[0].dataType)

    both = versions.select(
        key,
        F.col(since).alias("at"),
        F.lit(0).alias("order"),
        kept.alias("version"),
        typed(events, "event").alias("event"),
    ).unionByName(
        events.select(
            key,
            F.col("timestamp").alias("at"),
            F.lit(1).alias("order"),
            typed(versions, "version").alias("version"),
            event.alias("event"),
        )
    )
    known = F.last("version", ignorenulls=True).over(Window.partitionBy(key).orderBy("at", "order"))
    found = both.withColumn("version", known).where(F.col("order") == 1)
    return found.select(key, "event.*", F.col(f"version.{since}").alias(since), F.col(f"version.{side}").alias(side))


def versions(ids: DataFrame, settings: FeatureSettings, side: str, codes: FieldCodes) -> DataFrame:
    """(<side>, since, rows, weights) of all users or items, `ids` (<side>, <side>_id): what is known of each, and from
    when on. A row without `since` holds before all others."""
    features = settings.users if side == "user" else settings.items
    key = f"{side}_id"
    every = ids.select(F.col(side).alias("id"), key)
    if features is not None:
        rows = side_rows(ids.sparkSession, features, side, ids.schema[key].dataType.simpleString())
        rows = rows.withColumnRenamed(f"{side}_since", "since")
        nothing = {name: F.lit(None).cast(rows.schema[name].dataType) for name in ("since", side)}
        found = every.join(rows, key, "inner" if features.timestamp else "left")
        every = every.withColumns(nothing).unionByName(found) if features.timestamp else found
    else:
        every = every.withColumn("since", F.lit(None).cast("timestamp"))
    warn_of_extremes(every, codes.of(side), f"features.{side}s")
    encoded = encode(every.drop(key), codes.of(side), f"features.{side}s")
    return encoded.withColumnRenamed("id", side)


# --- encoding -----------------------------------------------------------------------------------------------------


def encode(frame: DataFrame, codes: Sequence[FieldCode], label: str) -> DataFrame:
    """The frame with its entries (`ENTRIES`) instead of the structs that they are made of.

    frame  with structs `context`, `user` or `item`, as far as the fields need them
    label  what it is, for errors

    Raises InputError for a column that is missing, or of another type than the one the codes were fitted to.
    """
    kept = [
        each.name
        for each in frame.schema
        if each.name not in fields.SIDES or not isinstance(each.dataType, StructType)  # `user` may also be an id
    ]
    if not codes:
        return frame.select(*kept, *nothing())
    for code in codes:
        struct = frame.schema[code.side].dataType if code.side in frame.columns else None
        struct = struct if isinstance(struct, StructType) else StructType()
        name = code.settings["column"]
        if name not in struct.fieldNames():
            has = ", ".join(map(repr, struct.fieldNames())) or "none"
            raise InputError(
                f"{label} has no column {name!r}, which feature {code.name!r} was fitted to. Its columns are {has}."
            )
        found = struct[name].dataType.simpleString()
        if found != code.type:
            raise InputError(
                f"{label}: column {name!r} of feature {code.name!r} is {found}, but was {code.type} when the dataset "
                "was prepared. Convert it, or prepare the dataset again."
            )
    plain = [_values(code).alias(f"_field{at}") for at, code in enumerate(codes)]
    read = frame.select(*kept, *plain)
    schema = schema_of(**types_of(frame, kept), **ENTRIES)
    return map_rows(read, RowFunction(schema, _encoder(list(codes), len(kept))))


def _values(code: FieldCode) -> Column:
    """What the code is made for, of a frame with the struct of its side."""
    return plain(column(code.side)[code.settings["column"]], code.settings)


def warn_of_extremes(frame: DataFrame, codes: Sequence[FieldCode], label: str) -> None:
    """Log how many numbers of a frame, as `encode` takes it, are beyond those of train, and so count as the nearest."""
    numeric = [code for code in codes if code.kind == "numeric"]
    if not numeric:
        return
    counted = [F.count_if(~_values(code).between(code.low, code.high)) for code in numeric]
    for code, n in zip(numeric, frame.agg(*counted).collect()[0], strict=True):
        if n:
            log.warning(
                "%s: %s values of feature %r are beyond those of train, %g to %g, and count as the nearest of these",
                *(label, f"{n:,}", code.name, code.low, code.high),
            )


def _encoder(codes: list[FieldCode], kept: int) -> Any:
    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            entries = fields.encode(codes, batch.columns[kept:])
            columns = [*batch.columns[:kept], *entries.arrow()]
            yield pa.RecordBatch.from_arrays(columns, [*batch.schema.names[:kept], "rows", "weights"])

    return work


# --- on disk ------------------------------------------------------------------------------------------------------


def save(codes: FieldCodes, folder: str) -> None:
    """As the tables `fields` and `vocabulary` in a folder."""
    for name, table in zip(("fields", "vocabulary"), codes.tables(), strict=True):
        storage.write(f"{folder}/{name}/part-00000.parquet", storage.parquet(table))


def load(folder: str) -> FieldCodes:
    """What `save` wrote."""
    return FieldCodes.of_tables(*(next(storage.read_parquet(f"{folder}/{name}")) for name in ("fields", "vocabulary")))
