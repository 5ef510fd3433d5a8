"""What a step of following writes, in commits that a table takes once."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import NamedTuple

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from sparkrec import tables
from sparkrec.config import IngestSettings
from sparkrec.errors import InputError
from sparkrec.spark.data.cleaning import clean
from sparkrec.spark.platform.keeping import checkpointed, kept, release
from sparkrec.spark.platform.lake import Lake
from sparkrec.spark.platform.sources import column
from sparkrec.stages.batches import (
    Batch,
    check_drift,
    digest_of,
    good_rows,
    note_batch,
    refuse_ambiguous,
    refuse_bad_batch,
    warn_of_unlikely,
)

log = logging.getLogger(__name__)

CHANGES, COMPARED, NEW_FILES = "changes", "compared", "new files"


class Covers(NamedTuple):
    """What a step is about: columns of `tables.FOLLOWED`."""

    how: str
    """CHANGES, by a change data feed; COMPARED, what the source has with what is here of it; NEW_FILES."""
    source_id: str | None = None
    """Identity of a Delta table."""
    version: int | None = None
    """Of that table, up to which its rows are here afterwards."""

    @classmethod
    def of(cls, step: Row) -> Covers:
        return cls(*(step[name] for name in cls._fields))


class Superseded(Exception):
    """A step that cannot be carried out any more; `covers` is what another one in its place does."""

    def __init__(self, covers: Covers) -> None:
        super().__init__(covers)
        self.covers = covers


def batch_of(settings: IngestSettings, number: int) -> str:
    """Batch of the rows of a step."""
    return f"{prefix_of(settings)}{number}"


def prefix_of(settings: IngestSettings) -> str:
    """What the batches of a source begin with."""
    return f"follow-{hashlib.sha256(settings.source.label.encode()).hexdigest()[:8]}-"


def gap(settings: IngestSettings, why: str) -> None:
    """Raise InputError where nobody can tell what has changed, unless all is to be compared then."""
    assert settings.follow is not None
    if settings.follow.on_gap == "refuse":
        raise InputError(
            f"nobody can tell what has changed in {settings.source.label}: {why}. With follow.on_gap: rebuild all that "
            f"is here of it is compared with what it has now, and made the same; or ingest it into another table than "
            f"{settings.table!r}."
        )
    log.warning("%s: %s; all that is here of it is compared with what it has now", settings.source.label, why)


def held(settings: IngestSettings, lake: Lake, name: str) -> DataFrame | None:
    """The rows of a table that came from the source; None where there are none."""
    if not lake.has_table(name):
        return None
    rows = lake.table(name).where(F.startswith("batch", F.lit(prefix_of(settings))))
    return None if rows.isEmpty() else rows


def write_step(
    settings: IngestSettings, lake: Lake, number: int, come: DataFrame, gone: DataFrame | None, whole: bool
) -> Batch:
    """Write what has come, cleaned, and take away what has gone; rejected rows go aside.

    come   rows of the source
    gone   rows of the source that it does not have any more; None: nobody asks
    whole  whether `come` is all that the source has, and what is here is to be the same

    Raises IngestError as for any batch.
    """
    batch = batch_of(settings, number)
    rows = kept(clean(come, settings))
    try:
        content, counts, unlikely, nulls = digest_of(rows, settings)
        if counts or whole:
            refuse_ambiguous(rows, counts, settings)
            refuse_bad_batch(counts, settings)
        good = good_rows(rows)
        marked = good.withColumn("batch", F.lit(batch))
        check_drift(lake, settings, come, marked)
        rejected = _write_rejected(settings, lake, batch, rows, whole)
        here = held(settings, lake, settings.table)
        minus = here if whole else None if gone is None else good_rows(clean(gone, settings))
        if minus is None or here is None:
            added, deleted = counts.get(None, 0), 0
            if added:
                lake.append(settings.table, marked, f"ingest:{batch}", tables.INTERACTIONS, new_columns=True)
        else:
            added, deleted = _write_changes(settings, lake, batch, _net(good, minus), here)
    finally:
        release(rows)
    warn_of_unlikely(settings, batch, unlikely)
    note_batch(settings, lake, "closed", batch, content, added, rejected)
    nothing = not (added or deleted)
    return Batch(batch, added, rejected, repeated=nothing, deleted=deleted, unlikely=unlikely, nulls=nulls)


def _write_rejected(settings: IngestSettings, lake: Lake, batch: str, rows: DataFrame, whole: bool) -> dict[str, int]:
    """Number of the rejected rows that are new, by reason."""
    table = tables.named(tables.REJECTED, settings.table)
    bad = rows.where("reason IS NOT NULL").select("reason", "source_file", "row")
    before = held(settings, lake, table) if whole else None
    if before is not None:
        bad = bad.exceptAll(before.select(*bad.columns))
    bad = checkpointed(bad)
    counts = {row["reason"]: row["count"] for row in bad.groupBy("reason").count().collect()}
    if counts:
        lake.append(table, bad.withColumn("batch", F.lit(batch)), f"ingest:{batch}", tables.REJECTED)
    return counts


def _net(come: DataFrame, gone: DataFrame) -> DataFrame:
    """Each row that comes more often than it goes, or less, with `n`, how much more: equal rows cancel out."""
    signed = come.withColumn("n", F.lit(1)).unionByName(
        gone.drop("batch").withColumn("n", F.lit(-1)), allowMissingColumns=True
    )
    names = [column(name) for name in come.columns]
    return signed.groupBy(*names).agg(F.sum("n").cast("int").alias("n")).where("n != 0")


def _write_changes(
    settings: IngestSettings, lake: Lake, batch: str, net: DataFrame, here: DataFrame
) -> tuple[int, int]:
    """Bring the rows that are here of the source by `n` more or fewer of each kind, in one commit. Returns how many
    were added and deleted."""
    names = [name for name in net.columns if name != "n"]
    net = checkpointed(net)
    # Of rows that go, those that are here: some may have gone before. As many of them as stay come back in the commit
    # that deletes all that are equal.
    fewer = _counted(net.where("n < 0"), here, names)
    fewer = checkpointed(fewer.where("m > 0").withColumn("stay", F.greatest(F.col("m") + F.col("n"), F.lit(0))))
    more = net.where("n > 0").withColumn("stay", F.col("n"))
    added = more.agg(F.coalesce(F.sum("stay"), F.lit(0))).collect()[0][0]
    deleted = fewer.agg(F.coalesce(F.sum(F.col("m") - F.col("stay")), F.lit(0))).collect()[0][0]
    arriving = more.select(*map(column, names), "stay").unionByName(fewer.select(*map(column, names), "stay"))
    copies = F.explode(F.array_repeat(F.lit(batch), F.col("stay").cast("int"))).alias("batch")
    arriving = arriving.select(*map(column, names), copies)
    new = set(names) - set(lake.table(settings.table).columns)
    if not deleted or new:
        rows = arriving.limit(0) if deleted else arriving
        transaction = f"columns:{batch}" if deleted else f"ingest:{batch}"
        if added or new:
            lake.append(settings.table, rows, transaction, tables.INTERACTIONS, new_columns=True)
    if deleted:
        leaving = fewer.select(*map(column, names), F.lit(batch).alias("batch"), F.lit(True).alias("gone"))
        changes = checkpointed(leaving.unionByName(arriving.withColumn("gone", F.lit(False))))
        of_source = f"startswith(old.batch, '{prefix_of(settings)}')"
        lake.change_rows(settings.table, changes, of_source, f"ingest:{batch}")
    return added, deleted


def _counted(rows: DataFrame, here: DataFrame, names: Sequence[str]) -> DataFrame:
    """The rows, with `m`, the number of those that are here and equal."""
    for_join = here.select(*[column(name).alias(f"_{at}") for at, name in enumerate(names) if name in here.columns])
    on = [
        column(name).eqNullSafe(F.col(f"_{at}")) if name in here.columns else column(name).isNull()
        for at, name in enumerate(names)
    ]
    found = rows.join(for_join.withColumn("_here", F.lit(1)), on, "left")
    return found.groupBy(*map(column, names), "n").agg(F.count("_here").alias("m"))
