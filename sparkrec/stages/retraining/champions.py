"""Which model is served under a name, since when and why: a history that is added to, and never changed."""

from __future__ import annotations

import datetime as dt
import getpass
from collections.abc import Mapping
from typing import Any

from pyspark.sql import Row

from sparkrec import tables
from sparkrec.config import DriftChecks, ListChecks, RetrainSettings
from sparkrec.errors import InputError, Refused
from sparkrec.spark.platform.lake import Lake, Run
from sparkrec.stages.ledger import Ledger, instant_of
from sparkrec.stages.retraining.drift import check_drift
from sparkrec.stages.retraining.lease import Lease, held
from sparkrec.stages.retraining.mirror import follow
from sparkrec.stages.retraining.serve import Lists, check_lists, lists_of, serve

_HOURS = 1.0
"""For which a command holds a name at most."""


def history(lake: Lake, name: str) -> list[Row]:
    """All changes of the champion, oldest first: columns as `tables.CHAMPIONS`."""
    return Ledger(lake, tables.CHAMPIONS, name).rows()


def champion(lake: Lake, name: str, at: dt.datetime | None = None) -> Row | None:
    """The row of the model that is served, or was at an instant; None where there was none yet."""
    rows = [row for row in history(lake, name) if at is None or instant_of(row, "at") <= at]
    return rows[-1] if rows else None


def blocked(rows: list[Row]) -> set[str]:
    """Models that were rolled back, and not promoted since by name."""
    found: set[str] = set()
    for before, row in zip([None, *rows], rows, strict=False):
        if row["action"] == "rollback" and before is not None:
            found.add(before["model"])
        else:
            found.discard(row["model"])
    return found


def lists_by(lake: Lake, model: str) -> Run:
    """The latest lists of a model, `name@id` or its latest. Raises InputError where it has none."""
    trained = lake.finished_run("train", model)
    runs = [
        lake.finished_run("recommend", f"{trained.name}@{run}") for run in lake.finished_ids("recommend", trained.name)
    ]
    own = [run for run in runs if run.inputs["model"] == trained.reference]
    if not own:
        raise InputError(
            f"model {trained.reference} has made no lists. Run `sparkrec recommend model={trained.reference}` first."
        )
    return max(own, key=lambda run: (run.manifest or {})["finished"])


def promote(
    lake: Lake,
    lease: Lease,
    after: Row | None,
    lists: Run,
    served: str,
    reason: str,
    metrics: Mapping[str, float] = {},
) -> Row:
    """Make the model of a run of `recommend` the champion after the one that it was compared with, and serve its lists.

    Raises Refused where the lease is lost, or another has changed the champion meanwhile.
    """
    return _change(lake, lease, after, lists, served, "promote", reason, metrics)


def rollback(lake: Lake, lease: Lease, reason: str, to: str | None = None) -> Row:
    """Serve a former champion again: the last one before the champion, that was not rolled back itself, or the one
    named. The one that was served is not promoted again but by name.

    Raises InputError where there is none, or its model or its lists are gone; Refused as `promote`.
    """
    rows = history(lake, lease.name)
    if not rows:
        raise InputError(f"nothing is served under {lease.name!r} yet. Run `sparkrec retrain` first.")
    current, bad = rows[-1], blocked(rows)
    former = [
        row
        for row in rows
        if row["model"] != current["model"] and (row["model"] == to if to else row["model"] not in bad)
    ]
    if not former:
        known = sorted({row["model"] for row in rows} - {current["model"]})
        raise InputError(
            f"there is no former champion {to or ''} of {lease.name!r} to go back to".replace("  ", " ")
            + (f": it was served by {', '.join(known)}." if known else ": it has had one alone.")
        )
    target = former[-1]
    lake.finished_run("train", target["model"])
    lists = lake.finished_run("recommend", target["recommendations"])
    lists_of(lake, lists)
    return _change(lake, lease, current, lists, target["served"], "rollback", reason, {})


def serve_again(lake: Lake, row: Row) -> None:
    """See to it that the lists of a change of the champion are served: whoever made it may have been killed before."""
    serve(lake, lake.finished_run("recommend", row["recommendations"]), row["served"], row["name"], row["number"])


def _change(
    lake: Lake,
    lease: Lease,
    after: Row | None,
    lists: Run,
    served: str,
    action: str,
    reason: str,
    metrics: Mapping[str, float],
) -> Row:
    lease.check()
    ledger = Ledger(lake, tables.CHAMPIONS, lease.name)
    values: dict[str, Any] = {
        "model": lists.inputs["model"],
        "recommendations": lists.reference,
        "served": served,
        "action": action,
        "reason": reason,
        "actor": getpass.getuser(),
        "metrics": dict(metrics),
    }
    row = ledger.add_after(after, **values)
    if row is None:
        raise Refused(
            f"another run has changed the champion of {lease.name!r} meanwhile: that one stays. Look at it, and run "
            "this again."
        )
    serve_again(lake, row)
    return row


def told(row: Row) -> dict[str, Any]:
    """A change of the champion, for people."""
    values = {key: value for key, value in row.asDict().items() if key != "token" and value not in (None, {}, "")}
    return {**values, "at": instant_of(row, "at").isoformat(timespec="seconds")}


def promote_by_name(lake: Lake, name: str, model: str, served: str | None, reason: str) -> dict[str, Any]:
    """As `promote`, of the latest lists of a model, once they are fit to be served; they are served from the table of
    the champion unless another is named. What was done, for people."""
    with held(lake, name, _HOURS) as lease:
        current = champion(lake, name)
        run = lists_by(lake, model)
        table = served or (current["served"] if current is not None else RetrainSettings.model_fields["serve"].default)
        lists = Lists.of(lake, run, table)
        metrics = check_lists(ListChecks(), lists) | check_drift(DriftChecks(), lake, name, current, lists)
        row = promote(lake, lease, current, run, table, reason, metrics)
        follow(lake, name)
        return told(row)


def rollback_by_name(lake: Lake, name: str, to: str | None, reason: str) -> dict[str, Any]:
    """As `rollback`; what was done, for people."""
    with held(lake, name, _HOURS) as lease:
        row = rollback(lake, lease, reason, to)
        follow(lake, name)
        return told(row)
