"""How a name is doing: what is served, what came of the last nights, what it takes, and what to do now."""

from __future__ import annotations

import datetime as dt
from typing import Any

from pyspark.sql import Row
from pyspark.sql import functions as F

from sparkrec import storage, tables
from sparkrec.errors import InputError
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.platform.lake import FOLDERS, Lake
from sparkrec.stages.ledger import Ledger, instant_of
from sparkrec.stages.retraining.champions import champion, told
from sparkrec.stages.retraining.data_checks import age_hours
from sparkrec.stages.retraining.gate import compared
from sparkrec.stages.retraining.lease import holder_of
from sparkrec.stages.retraining.retrain import FAILED, KEPT, REFUSED

_FINE = ("fine", "unknown")
"""Verdicts of which nobody need be told."""


def status(lake: Lake, name: str, nights: int = 5) -> dict[str, Any]:
    """What is served under a name, who holds it, what came of the last nights, and what to do next; for people."""
    current, holder = champion(lake, name), holder_of(lake, name)
    rows = Ledger(lake, tables.RETRAININGS, name).rows()
    found = {
        "champion": told(current) if current is not None else None,
        "held_by": holder,
        "age_hours": _ages(lake, current),
        "nights": [_night(row) for row in reversed(rows[-nights:])],
        "checks": _warnings(lake, name, rows),
        "bytes": _bytes(lake, current, rows),
        "next": _next(name, current, holder, rows[-1] if rows else None),
    }
    return {key: value for key, value in found.items() if value not in ({}, [])}


def _night(row: Row) -> dict[str, Any]:
    night = {
        "at": _time(row),
        "outcome": row["outcome"],
        "reason": row["reason"],
        "gate": compared(row["metrics"] or {}),
    }
    return {key: value for key, value in night.items() if value}


def _ages(lake: Lake, current: Row | None) -> dict[str, float]:
    """Of the champion, and of the last event that it has seen, where its dataset is still there."""
    if current is None:
        return {}
    age = (dt.datetime.now(dt.timezone.utc) - instant_of(current, "at")).total_seconds() / 3600
    ages: dict[str, float | None] = {"champion": age}
    try:
        dataset = lake.finished_run("train", current["model"]).inputs["dataset"]
        ages["last_event"] = age_hours(Dataset.open(lake, dataset))
    except InputError:
        ages["last_event"] = None
    return {what: round(hours, 1) for what, hours in ages.items() if hours is not None}


def _warnings(lake: Lake, name: str, rows: list[Row]) -> list[str]:
    """What was beyond its limit in the data of the last night that had any."""
    datasets = [row["dataset"] for row in rows if row["dataset"] is not None]
    if not datasets or not lake.has_table(tables.CHECKS.name):
        return []
    of_last = (F.col("name") == name) & (F.col("dataset") == datasets[-1])
    rows_of_last = lake.table(tables.CHECKS.name).where(of_last).orderBy("at").collect()
    latest = {row["check"]: row for row in rows_of_last}.values()
    beyond = [row for row in latest if row["verdict"] not in _FINE]
    return [f"{row['verdict']}: {row['check']} is {row['value']:.3g}, the limit is {row['limit']:g}" for row in beyond]


def _bytes(lake: Lake, current: Row | None, rows: list[Row]) -> dict[str, int]:
    """Of what all nights have left: models and datasets of the names that the last one had, and the lists served."""
    latest = {key: row[key] for row in rows for key in ("dataset", "challenger") if row[key] is not None}
    if current is not None:
        latest["challenger"] = current["model"]
    folders = {"datasets": ("prepare", "dataset"), "models": ("train", "challenger")}
    found = {
        what: storage.size(lake.path(FOLDERS[stage], latest[key].partition("@")[0]))
        for what, (stage, key) in folders.items()
        if key in latest
    }
    if current is not None and lake.has_table(current["served"]):
        found["lists"] = lake.table_bytes(current["served"])
    return found


def _next(name: str, current: Row | None, holder: str | None, last: Row | None) -> str:
    """What to do now, in a sentence."""
    if holder is not None:
        return "wait: a run has the name"
    if current is None and last is None:
        return "run the first night by `sparkrec retrain`"
    if last is not None and last["outcome"] == FAILED:
        return "mend what the last night failed for, and run it again"
    if last is not None and last["outcome"] == REFUSED:
        return "look at why the last night was refused, and run it again"
    if last is not None and last["outcome"] == KEPT and (current is None or last["challenger"] != current["model"]):
        return f"nothing; or, if you know better than the gate, `sparkrec promote {name} {last['challenger']}`"
    return f"nothing: the champion is of {_time(current)}" if current is not None else "nothing"


def _time(row: Row) -> str:
    return instant_of(row, "at").isoformat(timespec="seconds")
