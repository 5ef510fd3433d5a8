"""One HTML page about many nights: what is served since when, how the gate decided, what came in, what had drifted.

What it shows is in the page: it needs no network.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from sparkrec.config import DataChecks, DriftChecks
from sparkrec.spark.platform.lake import Lake
from sparkrec.stages.reporting.history_plots import sections
from sparkrec.stages.reporting.past import Past, Row, not_training
from sparkrec.stages.reporting.rendering import render, require_drawing

_AT_LEAST = DataChecks.at_least | DriftChecks.at_least
_CLASSES = {"warned": "warned", "failed": "worse"}


def history(lake: Lake, name: str) -> str:
    """The page about what is served under a name.

    Raises InputError where nothing is known of it, EnvironmentMismatch without matplotlib and Jinja
    (`pip install sparkrec[plot]`).
    """
    require_drawing()
    return page(Past.of(lake, name))


def page(past: Past) -> str:
    """The page about the rows of the tables."""
    known = list(dict.fromkeys(row["check"] for row in past.checks))
    return render(
        "history.html",
        title=f"{past.name}: {len(past.nights)} nights" if len(past.nights) != 1 else f"{past.name}: one night",
        words=_words(past.champions),
        sections=[section for section in sections(past) if section["plots"]],
        champions=_terms(past.champions),
        nights=[_night(past, night) for night in reversed(past.nights)],
        checks={
            "names": known,
            "rows": [
                {"at": _told(night["at"]), "cells": [_cell(found.get(name)) for name in known]}
                for night in reversed(past.nights)
                if (found := past.checked(night))
            ],
        },
    )


def _told(at: dt.datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"


def _words(champions: Sequence[Row]) -> str:
    if not champions:
        return "Nothing is served yet."
    latest = champions[-1]
    how = "rolled back to" if latest["action"] == "rollback" else "promoted"
    return f"{latest['model']} is served since {_told(latest['at'])}: {how} by {latest['actor']} ({latest['reason']})."


def _terms(champions: Sequence[Row]) -> list[Row]:
    """The champions, latest first, each with when it ended."""
    told, end = [], ""
    for row in reversed(champions):
        since = _told(row["at"])
        told.append({**row, "since": since, "until": end})
        end = since
    return told


def _night(past: Past, night: Row) -> Row:
    metrics, share = night["metrics"] or {}, not_training(night["seconds"])
    compared = [
        f"{name} {metrics['difference']:+.4f} ({metrics['low']:+.4f} to {metrics['high']:+.4f})"
        for name in past.metrics
        if f"challenger_{name}" in metrics and "difference" in metrics
    ]
    return {
        **night,
        "at": _told(night["at"]),
        "compared": "".join(compared),
        "took": sum((night["seconds"] or {}).values()),
        "not_training": "" if share is None else f"{share:.0%}",
    }


def _cell(row: Row | None) -> dict[str, str]:
    if row is None or row["value"] is None:
        return {"value": "", "note": "", "class": ""}
    verdict = row["verdict"]
    side = "at least" if row["check"] in _AT_LEAST else "at most"
    note = "" if verdict == "fine" else f"{verdict}: {side} {row['limit']:.3g}"
    return {"value": f"{row['value']:.3g}", "note": note, "class": _CLASSES.get(verdict, "")}
