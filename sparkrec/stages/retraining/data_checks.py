"""Whether the data of a night may be trained on: compared with the nights before, and with the champion's dataset."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import tables
from sparkrec.config import Check, DataChecks
from sparkrec.errors import InputError
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.platform.lake import Lake
from sparkrec.stages.batches import Batch

log = logging.getLogger(__name__)

_NIGHTS, _USUAL = 3, 7
"""So many nights make a median, and so many of the last ones are in it."""
FINE = ("fine", "unknown")
"""Verdicts of which nobody need be told."""
_AT_LEAST = ("volume",)
"""Checks whose limit is a lower one."""


@dataclass(frozen=True)
class Finding:
    """What one check came to."""

    check: str
    value: float | None
    """None: there is nothing to compare with yet."""
    limit: float
    verdict: str
    """fine, warned, failed or unknown."""

    def __str__(self) -> str:
        side = "at least" if self.check in _AT_LEAST else "at most"
        return f"{self.check} is {self.value:.3g}, expected {side} {self.limit:g} (checks.{self.check})"


def check_data(
    settings: DataChecks,
    lake: Lake,
    name: str,
    batches: Sequence[Batch],
    volumes: Sequence[int],
    new: Dataset,
    champion: Dataset | None,
) -> dict[str, float]:
    """Values by check; all are recorded in the table `checks`.

    batches   of this night
    volumes   rows that have come in the nights before, and in this one
    new       the dataset of this night
    champion  that of the champion; None: there is none, or it is gone
    Raises InputError where a check that is to `fail` is beyond its limit.
    """
    values = _of_batches(batches, volumes) | {"age_hours": age_hours(new)} | _of_both(new, champion)
    asked = {each: getattr(settings, each) for each in DataChecks.model_fields}
    found = [_judged(each, check, values.get(each)) for each, check in asked.items() if check.beyond != "off"]
    _record(lake, name, new.reference, found)
    for each in found:
        if each.verdict == "warned":
            log.warning("%s", each)
    if failed := [str(each) for each in found if each.verdict == "failed"]:
        raise InputError(f"dataset {new.reference} is not trained on: {'; '.join(failed)}. Look at what came in.")
    return {f"checks_{each.check}": each.value for each in found if each.value is not None}


def _judged(name: str, check: Check, value: float | None) -> Finding:
    if value is None:
        return Finding(name, None, check.limit, "unknown")
    fine = value >= check.limit if name in _AT_LEAST else value <= check.limit
    return Finding(name, value, check.limit, "fine" if fine else {"fail": "failed", "warn": "warned"}[check.beyond])


def _of_batches(batches: Sequence[Batch], volumes: Sequence[int]) -> dict[str, float | None]:
    rows = sum(batch.rows for batch in batches)
    rejected = sum(sum(batch.rejected.values()) for batch in batches)
    *before, now = volumes
    before = [each for each in before if each][-_USUAL:]  # nights in which nothing came tell nothing
    return {
        "volume": now / median(before) if now and len(before) >= _NIGHTS else None,
        "rejected": rejected / (rows + rejected) if rows + rejected else None,
    }


def age_hours(dataset: Dataset) -> float | None:
    """Hours since its latest event; None where it has no times."""
    parts = (dataset.train, dataset.validation, dataset.test)
    latest = [part.agg(F.unix_seconds(F.max("timestamp"))).collect()[0][0] for part in parts]
    known = [each for each in latest if each is not None]
    now = dt.datetime.now(dt.timezone.utc).timestamp()
    return (now - max(known)) / 3600 if known else None


def _of_both(new: Dataset, old: Dataset | None) -> dict[str, float | None]:
    if old is None:
        return {}
    return {
        "new_users": _share_of_new(new.users, old.users, "user_id"),
        "new_items": _share_of_new(new.items, old.items, "item_id"),
        "popularity": _divergence(new.items, old.items),
    }


def _share_of_new(new: DataFrame, old: DataFrame, column: str) -> float:
    known = old.select(column, F.lit(1).alias("known"))
    return float(
        new.select(column).join(known, column, "left").agg(F.avg(F.isnull("known").cast("int"))).collect()[0][0]
    )


def _divergence(new: DataFrame, old: DataFrame) -> float | None:
    """Of Jensen and Shannon, in bits: the mean of what each says of the mean of both."""
    both = old.select("item_id", F.col("train_count").alias("old")).join(
        new.select("item_id", F.col("train_count").alias("new")), "item_id", "full"
    )
    both = both.select(*[F.coalesce(name, F.lit(0)).alias(name) for name in ("old", "new")])
    totals = both.agg(*[F.sum(name).alias(name) for name in ("old", "new")]).collect()[0]
    if not totals["old"] or not totals["new"]:
        return None
    p, q = (F.col(name) / totals[name] for name in ("old", "new"))
    middle = (p + q) / 2
    terms = [F.when(share > 0, share * F.log2(share / middle)).otherwise(0.0) / 2 for share in (p, q)]
    return float(both.agg(F.sum(terms[0] + terms[1])).collect()[0][0])


def _record(lake: Lake, name: str, dataset: str, found: Sequence[Finding]) -> None:
    now = dt.datetime.now(dt.timezone.utc)
    rows = [{"name": name, "dataset": dataset, **vars(each), "at": now} for each in found]
    verdicts = ",".join(f"{each.check}={each.verdict}" for each in found)
    lake.add_rows(tables.CHECKS, rows, f"checks:{name}:{dataset}:{verdicts}")
