"""What was looked at in a night and what it came to, beside a limit that is given or that nights before have made."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from pyspark.sql import functions as F

from sparkrec import tables
from sparkrec.config import Check, Checks
from sparkrec.spark.platform.lake import Lake

log = logging.getLogger(__name__)

NIGHTS, USUAL = 3, 7
"""So many nights make a median, and so many of the last ones are in it."""
_TIMES, _LEAST = 3.0, 0.1
"""A limit that nights have made is so many times what is usual, and at least this share of the one before."""


@dataclass(frozen=True)
class Finding:
    """What one check came to."""

    setting: str
    """Which check it is: `checks.volume`."""
    value: float | None
    """None: there is nothing to compare with yet."""
    limit: float
    side: str
    """Where values are fine: `at least` or `at most` the limit."""
    verdict: str
    """fine, warned, failed or unknown."""

    @property
    def check(self) -> str:
        return self.setting.partition(".")[2]

    def __str__(self) -> str:
        return f"{self.check} is {self.value:.3g}, expected {self.side} {self.limit:g} ({self.setting})"


def judged(
    where: str, checks: Checks, values: Mapping[str, float | None], before: Mapping[str, Sequence[float]]
) -> list[Finding]:
    """What the checks that are on come to.

    where   key of these settings in those of a night
    values  by check; those that have none have nothing to compare with
    before  values by check of the nights before, oldest first
    """
    found = []
    for name in type(checks).model_fields:
        check: Check = getattr(checks, name)
        if check.beyond == "off":
            continue
        value, limit = values.get(name), limit_of(checks, name, before.get(name, ()))
        lower = name in checks.at_least
        verdict = "unknown"
        if value is not None:
            fine = value >= limit if lower else value <= limit
            verdict = "fine" if fine else {"fail": "failed", "warn": "warned"}[check.beyond]
        found.append(Finding(f"{where}.{name}", value, limit, "at least" if lower else "at most", verdict))
    return found


def limit_of(checks: Checks, name: str, before: Sequence[float]) -> float:
    """The limit that is given; else three times what is usual, once that is known."""
    given: float | None = getattr(checks, name).limit
    begin = checks.begins[name]
    if given is not None:
        return given
    if name in checks.at_least or len(before) < NIGHTS:
        return begin
    return max(_TIMES * median(before[-USUAL:]), _LEAST * begin)


def found_before(lake: Lake, name: str, dataset: str) -> dict[str, list[float]]:
    """Values by check of the nights before that of a dataset, oldest first; without those that failed."""
    if not lake.has_table(tables.CHECKS.name):
        return {}
    rows = lake.table(tables.CHECKS.name).where(
        (F.col("name") == name)
        & (F.col("dataset") != dataset)
        & F.col("verdict").isin("fine", "warned")
        & F.col("value").isNotNull()
    )
    latest = {(row["check"], row["dataset"]): row["value"] for row in rows.orderBy("at").collect()}
    values: dict[str, list[float]] = {}
    for (check, _), value in latest.items():
        values.setdefault(check, []).append(value)
    return values


def settle(lake: Lake, name: str, dataset: str, found: Sequence[Finding]) -> list[str]:
    """Record findings in the table `checks`, warn of those that are to be warned of, and return those that failed."""
    now = dt.datetime.now(dt.timezone.utc)
    common = {"name": name, "dataset": dataset, "at": now}
    rows = [{**common, **{key: getattr(each, key) for key in ("check", "value", "limit", "verdict")}} for each in found]
    verdicts = ",".join(f"{each.check}={each.verdict}" for each in found)
    if rows:
        lake.add_rows(tables.CHECKS, rows, f"checks:{name}:{dataset}:{verdicts}")
    for each in found:
        if each.verdict == "warned":
            log.warning("%s", each)
    return [str(each) for each in found if each.verdict == "failed"]
