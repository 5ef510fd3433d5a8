"""What a batch of rows is before it is written: its counts, and the reasons for which it is refused."""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
from dataclasses import dataclass, field
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import tables
from sparkrec.config import IngestSettings
from sparkrec.errors import IngestError
from sparkrec.spark.data.cleaning import AMBIGUOUS
from sparkrec.spark.platform.digests import digest_sums
from sparkrec.spark.platform.lake import Lake
from sparkrec.spark.platform.sources import MALFORMED

log = logging.getLogger(__name__)

READING = ("timestamp_format", "on_null_timestamp", "id_type", "max_abs_rating")
"""Settings by which the same source becomes other rows."""


@dataclass(frozen=True)
class Batch:
    """What became of a batch."""

    id: str
    rows: int
    """Good rows, now in the table."""
    rejected: dict[str, int]
    """Other rows by reason."""
    repeated: bool = False
    """The batch was there already and nothing was written."""
    deleted: int = 0
    """Rows that the source no longer has, and now the table neither."""
    unlikely: dict[str, int] = field(default_factory=dict)
    """Good rows whose time is `before_1990` or `in_the_future`, where there are any."""
    nulls: dict[str, int] = field(default_factory=dict)
    """Good rows without a timestamp or an event, by which of them, where the source has a column of it."""

    def report(self) -> dict[str, Any]:
        """For people."""
        return {
            "batch": self.id,
            "rows": self.rows,
            "rejected": self.rejected,
            "repeated": self.repeated,
            **({"deleted": self.deleted} if self.deleted else {}),
            **({"unlikely_times": self.unlikely} if self.unlikely else {}),
            **({"nulls": self.nulls} if any(self.nulls.values()) else {}),
        }


def digest_of(
    rows: DataFrame, settings: IngestSettings
) -> tuple[str, dict[str | None, int], dict[str, int], dict[str, int]]:
    """What the rows are known by, whatever their order, and how they are read; their number by reason; good ones of an
    unlikely time, and without a timestamp or an event."""
    first, second = digest_sums()
    parts = (
        rows.groupBy("reason")
        .agg(
            F.count("*").alias("n"),
            first.alias("a"),
            second.alias("b"),
            F.count_if(F.col("timestamp") < F.lit("1990-01-01").cast("timestamp")).alias("before_1990"),
            F.count_if(F.col("timestamp") > F.current_timestamp()).alias("in_the_future"),
            *[F.count_if(F.col(name).isNull()).alias(name) for name in ("timestamp", "event")],
        )
        .collect()
    )
    text = "\n".join(sorted(f"{part.reason} {part.n} {part.a} {part.b}" for part in parts)) + str(settings.columns)
    reading = str([getattr(settings, name) for name in READING])
    content = ":".join(hashlib.sha256(each.encode()).hexdigest() for each in (text, reading))
    good = [part.asDict() for part in parts if part.reason is None]
    unlikely = {name: part[name] for part in good for name in ("before_1990", "in_the_future") if part[name]}
    mapped = [name for name in ("timestamp", "event") if getattr(settings.columns, name) is not None]
    nulls = {name: part[name] for part in good for name in mapped}
    return content, {part.reason: part.n for part in parts}, unlikely, nulls


def good_rows(rows: DataFrame) -> DataFrame:
    """Those of cleaned rows that are not rejected, with columns of `tables.INTERACTIONS` but `batch`."""
    return rows.where("reason IS NULL").drop("reason", "source_file", "row", "digest")


def note_batch(
    settings: IngestSettings, lake: Lake, state: str, batch: str, content: str, rows: int, rejected: dict[str, int]
) -> None:
    """Say in the table of batches that one is open or closed, once."""
    row = {"batch": batch, "content_hash": content, "state": state, "rows": rows, "rejected": rejected}
    now = dt.datetime.now(dt.timezone.utc)
    lake.add_rows(tables.of(tables.BATCHES, settings.table), [{**row, "at": now}], f"batch:{batch}:{state}")


def warn_of_unlikely(settings: IngestSettings, batch: str, unlikely: dict[str, int]) -> None:
    if unlikely:
        log.warning("batch %s: unlikely times in column %r: %s", batch, settings.columns.timestamp, unlikely)


def refuse_ambiguous(rows: DataFrame, counts: dict[str | None, int], settings: IngestSettings) -> None:
    if not counts.get(AMBIGUOUS):
        return
    name = settings.columns.timestamp
    assert name is not None
    some = rows.where(F.col("reason") == AMBIGUOUS).select(F.get_json_object("row", f"$['{name}']")).limit(3).collect()
    raise IngestError(
        f"column {name!r} of {settings.source.label} holds texts of digits, or of times without a date, in "
        f"{counts[AMBIGUOUS]:,} rows, such as {', '.join(repr(row[0]) for row in some)}: timestamp_format auto reads "
        "ISO 8601, and cannot tell seconds from years. Set it to seconds, milliseconds or a pattern such as yyyyMMdd."
    )


def refuse_bad_batch(counts: dict[str | None, int], settings: IngestSettings) -> None:
    total, good = sum(counts.values()), counts.get(None, 0)
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.items(), key=str) if reason)
    if total == 0:
        raise IngestError(f"{settings.source.label} holds no rows. Check the path and the format.")
    if good == 0:
        raise IngestError(
            f"all {total:,} rows of {settings.source.label} are rejected ({reasons}). "
            f"Check `columns` and `timestamp_format` against the source.{_of_text(counts)}"
        )
    if total - good > settings.max_rejected * total:
        raise IngestError(
            f"{total - good:,} of {total:,} rows of {settings.source.label} are rejected ({reasons}): more than "
            f"max_rejected = {settings.max_rejected:g} of them. Nothing was written. Mend the source, or "
            f"raise it.{_of_text(counts)}"
        )


def _of_text(counts: dict[str | None, int]) -> str:
    """What helps where rows of a text file were not read as they are meant."""
    hints = {
        "malformed": " Malformed rows have other fields than the header: source.options has multiLine for line breaks "
        "in quoted texts, escape for quotes after a backslash, sep for what divides fields.",
        "bad_encoding": " Bytes that are not UTF-8: set source.options.encoding.",
    }
    return "".join(hint for kind, hint in hints.items() if counts.get(kind))


def check_drift(lake: Lake, settings: IngestSettings, source: DataFrame, good: DataFrame) -> None:
    """Note a column nobody mapped; refuse one that is missing or has another type than in the table."""
    mapped = {*settings.columns.mapped, MALFORMED}
    extra = [name for name in source.columns if name not in mapped]
    if extra:
        log.warning("columns of the source that are not kept: %s (name them in columns.context to keep them)", extra)
    if not lake.has_table(settings.table):
        return
    old = {field.name: field.dataType for field in lake.table(settings.table).schema}
    new = {field.name: field.dataType for field in good.schema}
    for name, kind in old.items():
        if name not in new:
            raise IngestError(
                f"table {settings.table!r} has a column {name!r} that this batch lacks. "
                "Add it to columns.context, or ingest into another table."
            )
        if new[name].simpleString() != kind.simpleString():
            raise IngestError(
                f"column {name!r} is {new[name].simpleString()} in this batch, but {kind.simpleString()} in table "
                f"{settings.table!r}. Cast it where it is written (for ids see id_type), or ingest into another table."
            )
    added = [name for name in new if name not in old]
    if added:
        log.warning("new columns in table %s: %s (null in older batches)", settings.table, added)
