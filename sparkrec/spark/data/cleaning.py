"""From source rows to interactions, each row with the reason for which it is rejected, if any."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from sparkrec.config import IngestSettings
from sparkrec.errors import IngestError
from sparkrec.spark.platform.before_spark_4 import try_cast
from sparkrec.spark.platform.digests import row_digest
from sparkrec.spark.platform.sources import MALFORMED, column, resolved

_LONGS = (T.ByteType, T.ShortType, T.IntegerType, T.LongType)
AMBIGUOUS = "ambiguous_timestamp"
"""Reason of a text where timestamps are read by themselves: digits, which may be seconds, milliseconds, a year or a
day; or a time of day, which Spark would put on today."""

_NUMBERS = (*_LONGS, T.FloatType, T.DoubleType, T.DecimalType)


def clean(frame: DataFrame, settings: IngestSettings) -> DataFrame:
    """Columns of `tables.INTERACTIONS` without `batch`, then what is kept of the source row.

    reason       null for a good row, else the first that holds of malformed, bad_encoding, null_user, null_item,
                 null_rating, rating_not_finite, rating_out_of_range, ambiguous_timestamp, bad_timestamp and
                 null_timestamp
    source_file  where the row came from
    row          the source row as JSON, of a rejected row only
    digest       64-bit hash of the source row
    """
    columns = settings.columns
    frame = resolved(frame, columns.mapped, settings.source.label)
    user = _id(frame, columns.user, settings.id_type)
    item = _id(frame, columns.item, settings.id_type)
    rating = _rating(frame, columns.rating)
    timestamp, timestamp_given = _timestamp(frame, columns.timestamp, settings.timestamp_format)
    ambiguous = F.lit(False)
    if settings.timestamp_format == "auto" and columns.timestamp:
        ambiguous = column(columns.timestamp).cast("string").rlike(r"^\s*([0-9]+|T?[0-9]{1,2}:.*)\s*$")
        ambiguous = ambiguous & F.lit(isinstance(frame.schema[columns.timestamp].dataType, T.StringType))
    absurd = F.abs(rating) > settings.max_abs_rating
    reasons = [
        *_of_text(frame, columns.mapped),
        (user.isNull(), "null_user"),
        (item.isNull(), "null_item"),
        (rating.isNull(), "null_rating"),
        (F.isnan(rating) | (F.abs(rating) == float("inf")), "rating_not_finite"),
        (absurd, "rating_out_of_range"),
        (ambiguous, AMBIGUOUS),
        (timestamp.isNull() & timestamp_given, "bad_timestamp"),
    ]
    if columns.timestamp and settings.on_null_timestamp == "reject":
        reasons.append((timestamp.isNull(), "null_timestamp"))
    event = column(columns.event).cast("string") if columns.event else F.lit(None).cast("string")
    # Hidden file metadata is there for file sources only.
    of_files = settings.source.format in ("csv", "json", "parquet")
    file = F.col("_metadata.file_path") if of_files else F.lit(settings.source.label)
    reason = F.coalesce(*[F.when(wrong, F.lit(name)) for wrong, name in reasons])
    source = [column(name) for name in frame.columns]
    return frame.select(
        user.alias("user_id"),
        item.alias("item_id"),
        rating.alias("rating"),
        timestamp.alias("timestamp"),
        event.alias("event"),
        *[column(name) for name in columns.context],
        reason.alias("reason"),
        file.alias("source_file"),
        F.when(reason.isNotNull(), F.to_json(F.struct(*source))).alias("row"),
        row_digest(frame).alias("digest"),
    )


def _of_text(frame: DataFrame, mapped: list[str]) -> list[tuple[Column, str]]:
    """What can be wrong with a row of a text file: it is malformed, or a column that is used has bytes that are no
    characters, for which readers put U+FFFD."""
    if MALFORMED not in frame.columns:
        return []
    texts = [column(name) for name in mapped if isinstance(frame.schema[name].dataType, T.StringType)]
    broken = [text.contains("\ufffd") for text in texts]
    return [(column(MALFORMED).isNotNull(), "malformed"), *((each, "bad_encoding") for each in broken)]


def _id(frame: DataFrame, name: str, id_type: str) -> Column:
    kind = frame.schema[name].dataType
    raw = column(name)
    if isinstance(kind, T.StringType):
        text = F.when(F.trim(raw) != "", raw)
        return text if id_type != "long" else try_cast(F.trim(raw), "long")
    if isinstance(kind, _LONGS) or (isinstance(kind, T.DecimalType) and kind.scale == 0):
        # A decimal may hold more digits than a long: as text it keeps them all.
        as_text = id_type == "string" or (isinstance(kind, T.DecimalType) and id_type == "source")
        return raw.cast("string") if as_text else try_cast(raw, "long")
    raise IngestError(
        f"column {name!r} is {kind.simpleString()}, but an id is an integer or a string. "
        "Choose another column, or cast it where it is written."
    )


def _rating(frame: DataFrame, name: str | None) -> Column:
    if name is None:
        return F.lit(1.0)
    kind = frame.schema[name].dataType
    if not isinstance(kind, (*_NUMBERS, T.StringType, T.BooleanType)):
        raise IngestError(f"column {name!r} is {kind.simpleString()}, but a rating is a number.")
    return try_cast(column(name), "double")


def _timestamp(frame: DataFrame, name: str | None, layout: str) -> tuple[Column, Column]:
    """The parsed timestamp, and whether the source had one at all."""
    if name is None:
        return F.lit(None).cast("timestamp"), F.lit(False)
    kind = frame.schema[name].dataType
    raw = column(name)
    given = raw.isNotNull()
    if isinstance(kind, T.StringType):
        given = given & (F.trim(raw) != "")
    if isinstance(kind, (T.TimestampType, T.TimestampNTZType, T.DateType)):
        return raw.cast("timestamp"), given
    if layout == "milliseconds":
        return _from_seconds(try_cast(raw, "double") / 1000), given
    if layout == "seconds" or (layout == "auto" and isinstance(kind, _NUMBERS)):
        return _from_seconds(try_cast(raw, "double")), given
    if not isinstance(kind, T.StringType):
        raise IngestError(
            f"column {name!r} is {kind.simpleString()}, which timestamp_format {layout!r} cannot read. "
            "Use 'auto', 'seconds' or 'milliseconds'."
        )
    if layout == "auto":
        return F.try_to_timestamp(raw), given
    return F.try_to_timestamp(raw, F.lit(layout)), given


def _from_seconds(seconds: Column) -> Column:
    # Spark's timestamps end with the year 9999; beyond, the cast wraps around instead of failing.
    in_range = seconds.between(-62135596800.0, 253402300799.0)
    return F.when(in_range, F.timestamp_micros((seconds * 1e6).cast("long")))
