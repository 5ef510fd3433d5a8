"""One step after another: each is opened with what it covers, carried out, and closed.

A step that was opened and not closed is carried out again, by whoever comes next. What it writes are commits that Delta
takes once, so that the same rows come of it whether or not it had been killed, and where two follow at once.
"""

from __future__ import annotations

import logging
from typing import Protocol

from pyspark.sql import Row

from sparkrec import tables
from sparkrec.config import IngestSettings
from sparkrec.spark.platform.lake import Lake
from sparkrec.stages.batches import Batch
from sparkrec.stages.following.folder import Folder
from sparkrec.stages.following.steps import Covers, Superseded, batch_of
from sparkrec.stages.following.table import SourceTable
from sparkrec.stages.ledger import Ledger

log = logging.getLogger(__name__)

_OPEN, _CLOSED = "open", "closed"


class _Source(Protocol):
    """What is followed."""

    def next_step(self, done: Row | None) -> Covers | None:
        """What the step after the last one that was closed covers; None where nothing has changed since.

        Raises InputError where nobody can tell what has, unless it is to be rebuilt then.
        """

    def carry_out(self, step: Row, done: Row | None) -> Batch:
        """Add what has come to the table, and take from it what has gone.

        Raises Superseded where the step cannot be carried out any more, and another one can in its place.
        """


def follow(settings: IngestSettings, lake: Lake) -> Batch:
    """Take what has changed in a source since the last time. Raises InputError, IngestError."""
    source = _source(settings, lake)
    ledger = _ledger(settings, lake)
    while True:
        rows = ledger.rows()
        last, done = rows[-1] if rows else None, _done(rows)
        if last is None or last["state"] == _CLOSED:
            covers = source.next_step(done)
            if covers is None:
                assert done is not None
                log.info("nothing has changed in %s", settings.source.label)
                return Batch(batch_of(settings, done["number"]), 0, {}, repeated=True)
            last = ledger.add_after(last, state=_OPEN, **covers._asdict())
            if last is None:  # another run is following it: on with its step
                continue
        try:
            batch = source.carry_out(last, done)
        except Superseded as other:
            ledger.add_after(last, state=_OPEN, **other.covers._asdict())
            continue
        covered = Covers.of(last)
        closed = {"state": _CLOSED, "added": batch.rows, "deleted": batch.deleted, **covered._asdict()}
        if ledger.add_after(last, **closed) is not None:
            log.info("%s: %s rows have come, %s have gone", settings.source.label, batch.rows, batch.deleted)
            return batch


def how_far(settings: IngestSettings, lake: Lake) -> str:
    """For people: up to where a source was followed."""
    done = _done(_ledger(settings, lake).rows())
    if done is None:
        return "all that there is, as it was not followed before"
    until = f"version {done['version']}" if done["version"] is not None else f"step {done['number']}"
    return f"what has changed since {until}, of {done['at']:%Y-%m-%d %H:%M}"


def _source(settings: IngestSettings, lake: Lake) -> _Source:
    of_files = settings.source.format in ("csv", "json", "parquet")
    return Folder(settings, lake) if of_files else SourceTable(settings, lake)


def _ledger(settings: IngestSettings, lake: Lake) -> Ledger:
    return Ledger(lake, tables.of(tables.FOLLOWED, settings.table), settings.source.label)


def _done(rows: list[Row]) -> Row | None:
    return next((row for row in reversed(rows) if row["state"] == _CLOSED), None)
