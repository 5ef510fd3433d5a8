"""Take one batch of an interaction log into the lake: good rows to one table, the others to another with the reason."""

from __future__ import annotations

import logging
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import tables
from sparkrec.config import IngestSettings
from sparkrec.errors import IngestError
from sparkrec.spark.data.cleaning import clean
from sparkrec.spark.platform.keeping import kept, release
from sparkrec.spark.platform.lake import Lake
from sparkrec.spark.platform.sources import read_log
from sparkrec.stages.batches import (
    READING,
    Batch,
    check_drift,
    digest_of,
    good_rows,
    note_batch,
    refuse_ambiguous,
    refuse_bad_batch,
    warn_of_unlikely,
)
from sparkrec.stages.following.follow import follow, how_far
from sparkrec.stages.planned import Planned
from sparkrec.stages.running import stage

log = logging.getLogger(__name__)


def inputs(settings: IngestSettings, lake: Lake) -> dict[str, Any]:
    """Version of the target before the batch."""
    known = lake.has_table(settings.table)
    return {"table": settings.table, "version": lake.table_version(settings.table) if known else None}


def plan(settings: IngestSettings, lake: Lake) -> Planned:
    """What it would read and write. A batch without an id has one once it is read."""
    others = (tables.REJECTED, tables.BATCHES, *((tables.FOLLOWED,) if settings.follow is not None else ()))
    names = [settings.table, *(tables.named(each, settings.table) for each in others)]
    if settings.follow is not None:
        return Planned(inputs(settings, lake), how_far(settings, lake), [lake.place(name) for name in names], None)
    known = _known(lake, settings, settings.batch) if settings.batch else None
    finished = None if settings.batch is None else known is not None and known["state"] == "closed"
    batch = settings.batch or "made from its content"
    return Planned(inputs(settings, lake), f"batch {batch}", [lake.place(name) for name in names], finished)


@stage("ingest")
def ingest(settings: IngestSettings, lake: Lake) -> Batch:
    """Append a batch, once: the same batch again does nothing, its id with other content is an IngestError.

    Where the source is followed, the batch is what has changed in it.

    The batch is announced with its content hash before the first row is written and closed after the last, and each
    write is one commit that Delta refuses to repeat. So a run killed anywhere is completed by running it again.
    """
    if settings.follow is not None:
        return follow(settings, lake)
    source = read_log(lake.spark, settings.source)
    rows = kept(clean(source, settings))
    try:
        content, counts, unlikely, nulls = digest_of(rows, settings)
        batch = settings.batch or content[:16]
        known = _known(lake, settings, batch)
        if known and known["content_hash"] != content:
            same = known["content_hash"].partition(":")[0] == content.partition(":")[0]
            how = f"read in another way ({', '.join(READING)})" if same else "with other content"
            raise IngestError(
                f"batch {batch!r} of table {settings.table!r} was ingested {how} on {known['at']}. Give it a batch id "
                "of its own, or another table; rows that are in the table are never replaced."
            )
        rejected = {reason: count for reason, count in counts.items() if reason}
        if known and known["state"] == "closed":
            log.info("batch %s is in table %s already: nothing to do", batch, settings.table)
            return Batch(batch, known["rows"], rejected, repeated=True, unlikely=unlikely, nulls=nulls)
        refuse_ambiguous(rows, counts, settings)
        refuse_bad_batch(counts, settings)
        good = good_rows(rows).withColumn("batch", F.lit(batch))
        check_drift(lake, settings, source, good)
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
    warn_of_unlikely(settings, batch, unlikely)
    return Batch(batch, counts.get(None, 0), rejected, unlikely=unlikely, nulls=nulls)


def _known(lake: Lake, settings: IngestSettings, batch: str) -> Any:
    name = tables.named(tables.BATCHES, settings.table)
    if not lake.has_table(name):
        return None
    found = lake.table(name).where(F.col("batch") == batch).orderBy(F.col("state") == "open").limit(1).collect()
    return found[0] if found else None


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
    told = batch, content, counts.get(None, 0), rejected_counts
    note_batch(settings, lake, "open", *told)  # of two jobs that announce one id at once, Delta lets one through
    other = _known(lake, settings, batch)
    if other["content_hash"] != content:
        raise IngestError(f"batch {batch!r} is being ingested with other content by another job. Give it another id.")
    if rejected_counts:
        bad = rows.where("reason IS NOT NULL").select("reason", "source_file", "row", F.lit(batch).alias("batch"))
        lake.append(tables.named(tables.REJECTED, settings.table), bad, f"ingest:{batch}", tables.REJECTED)
    lake.append(settings.table, good, f"ingest:{batch}", tables.INTERACTIONS, new_columns=True)
    note_batch(settings, lake, "closed", *told)
