"""Take one batch of an interaction log into the lake: good rows to one table, the others to another with the reason."""

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
from sparkrec.spark.data.cleaning import AMBIGUOUS, clean
from sparkrec.spark.platform.keeping import kept, release
from sparkrec.spark.platform.lake import Lake
from sparkrec.spark.platform.sources import MALFORMED, read_log
from sparkrec.stages.planned import Planned
from sparkrec.stages.running import stage

log = logging.getLogger(__name__)

_READING = ("timestamp_format", "on_null_timestamp", "id_type", "max_abs_rating")
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
            **({"unlikely_times": self.unlikely} if self.unlikely else {}),
            **({"nulls": self.nulls} if any(self.nulls.values()) else {}),
        }


def inputs(settings: IngestSettings, lake: Lake) -> dict[str, Any]:
    """Version of the target before the batch."""
    known = lake.has_table(settings.table)
    return {"table": settings.table, "version": lake.table_version(settings.table) if known else None}


def plan(settings: IngestSettings, lake: Lake) -> Planned:
    """What it would read and write. A batch without an id has one once it is read."""
    names = [settings.table, *(tables.named(each, settings.table) for each in (tables.REJECTED, tables.BATCHES))]
    known = _known(lake, settings, settings.batch) if settings.batch else None
    finished = None if settings.batch is None else known is not None and known["state"] == "closed"
    batch = settings.batch or "made from its content"
    return Planned(inputs(settings, lake), f"batch {batch}", [lake.place(name) for name in names], finished)


@stage("ingest")
def ingest(settings: IngestSettings, lake: Lake) -> Batch:
    """Append a batch, once: the same batch again does nothing, its id with other content is an IngestError.

    The batch is announced with its content hash before the first row is written and closed after the last, and each
    write is one commit that Delta refuses to repeat. So a run killed anywhere is completed by running it again.
    """
    source = read_log(lake.spark, settings.source)
    rows = kept(clean(source, settings))
    try:
        content, counts, unlikely, nulls = _digest(rows, settings)
        batch = settings.batch or content[:16]
        known = _known(lake, settings, batch)
        if known and known["content_hash"] != content:
            same = known["content_hash"].partition(":")[0] == content.partition(":")[0]
            how = f"read in another way ({', '.join(_READING)})" if same else "with other content"
            raise IngestError(
                f"batch {batch!r} of table {settings.table!r} was ingested {how} on {known['at']}. Give it a batch id "
                "of its own, or another table; rows that are in the table are never replaced."
            )
        rejected = {reason: count for reason, count in counts.items() if reason}
        if known and known["state"] == "closed":
            log.info("batch %s is in table %s already: nothing to do", batch, settings.table)
            return Batch(batch, known["rows"], rejected, repeated=True, unlikely=unlikely, nulls=nulls)
        _refuse_ambiguous(rows, counts, settings)
        _refuse_bad_batch(counts, settings)
        good = (
            rows.where("reason IS NULL")
            .drop("reason", "source_file", "row", "digest")
            .withColumn("batch", F.lit(batch))
        )
        _check_drift(lake, settings, source, good)
        _write(lake, settings, batch, content, rows, good, counts)
    finally:
        release(rows)
    log.info(
        "batch %s: %s rows into %s, %s rejected",
        batch,
        counts.get(None, 0),
        settings.table,
        rejected or "none",
    )
    if unlikely:
        log.warning("batch %s: unlikely times in column %r: %s", batch, settings.columns.timestamp, unlikely)
    return Batch(batch, counts.get(None, 0), rejected, unlikely=unlikely, nulls=nulls)


def _digest(
    rows: DataFrame, settings: IngestSettings
) -> tuple[str, dict[str | None, int], dict[str, int], dict[str, int]]:
    """What the rows are known by, whatever their order, and how they are read; their number by reason; good ones of an
    unlikely time, and without a timestamp or an event."""
    # Sums, not xor, under which equal rows cancel out; two of them, since one sum of 64 bits is easily made to collide.
    parts = (
        rows.groupBy("reason")
        .agg(
            F.count("*").alias("n"),
            F.sum(F.col("digest").cast("decimal(38,0)")).alias("a"),
            F.sum(F.hash("digest").cast("decimal(38,0)")).alias("b"),
            F.count_if(F.col("timestamp") < F.lit("1990-01-01").cast("timestamp")).alias("before_1990"),
            F.count_if(F.col("timestamp") > F.current_timestamp()).alias("in_the_future"),
            *[F.count_if(F.col(name).isNull()).alias(name) for name in ("timestamp", "event")],
        )
        .collect()
    )
    text = "\n".join(sorted(f"{part.reason} {part.n} {part.a} {part.b}" for part in parts)) + str(settings.columns)
    reading = str([getattr(settings, name) for name in _READING])
    content = ":".join(hashlib.sha256(each.encode()).hexdigest() for each in (text, reading))
    good = [part.asDict() for part in parts if part.reason is None]
    unlikely = {name: part[name] for part in good for name in ("before_1990", "in_the_future") if part[name]}
    mapped = [name for name in ("timestamp", "event") if getattr(settings.columns, name) is not None]
    nulls = {name: part[name] for part in good for name in mapped}
    return content, {part.reason: part.n for part in parts}, unlikely, nulls


def _refuse_ambiguous(rows: DataFrame, counts: dict[str | None, int], settings: IngestSettings) -> None:
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


def _known(lake: Lake, settings: IngestSettings, batch: str) -> Any:
    name = tables.named(tables.BATCHES, settings.table)
    if not lake.has_table(name):
        return None
    found = lake.table(name).where(F.col("batch") == batch).orderBy(F.col("state") == "open").limit(1).collect()
    return found[0] if found else None


def _refuse_bad_batch(counts: dict[str | None, int], settings: IngestSettings) -> None:
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


def _check_drift(lake: Lake, settings: IngestSettings, source: DataFrame, good: DataFrame) -> None:
    """Note a column nobody mapped; refuse one that is missing or has another type than in the table."""
    columns = settings.columns
    mapped = {columns.user, columns.item, columns.rating, columns.timestamp, columns.event, *columns.context, MALFORMED}
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


def _write(
    lake: Lake,
    settings: IngestSettings,
    batch: str,
    content: str,
    rows: DataFrame,
    good: DataFrame,
    counts: dict[str | None, int],
) -> None:
    rejected_counts = {reason: count for reason, count in counts.items() if reason}
    batches = tables.named(tables.BATCHES, settings.table)

    def note(state: str) -> None:
        now = dt.datetime.now(dt.timezone.utc)
        row = (batch, content, state, counts.get(None, 0), rejected_counts, now)
        frame = lake.spark.createDataFrame([row], tables.BATCHES.columns)
        lake.append(batches, frame, f"batch:{batch}:{state}", tables.BATCHES)

    note("open")  # of two jobs that announce one id at once, Delta lets one through
    other = _known(lake, settings, batch)
    if other["content_hash"] != content:
        raise IngestError(f"batch {batch!r} is being ingested with other content by another job. Give it another id.")
    if rejected_counts:
        bad = rows.where("reason IS NOT NULL").select("reason", "source_file", "row", F.lit(batch).alias("batch"))
        lake.append(tables.named(tables.REJECTED, settings.table), bad, f"ingest:{batch}", tables.REJECTED)
    lake.append(settings.table, good, f"ingest:{batch}", tables.INTERACTIONS, new_columns=True)
    note("closed")
