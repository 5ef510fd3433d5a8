"""Whether the data of a night may be trained on: compared with the nights before, and with the champion's dataset."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from functools import reduce
from statistics import median

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.config import DataChecks
from sparkrec.errors import InputError
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.platform.lake import Lake
from sparkrec.stages.batches import Batch
from sparkrec.stages.retraining.divergence import divergence
from sparkrec.stages.retraining.findings import NIGHTS, USUAL, found_before, judged, settle

_VALUES = 20
"""So many different values are looked at one by one; more of them by deciles."""


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
    values = of_batches(batches, volumes) | {"age_hours": age_hours(new)} | _of_both(new, champion)
    found = judged("checks", settings, values, found_before(lake, name, new.reference))
    if failed := settle(lake, name, new.reference, found):
        raise InputError(f"dataset {new.reference} is not trained on: {'; '.join(failed)}. Look at what came in.")
    return {f"checks_{each.check}": each.value for each in found if each.value is not None}


def of_batches(batches: Sequence[Batch], volumes: Sequence[int]) -> dict[str, float | None]:
    """What the numbers of rows tell, of this night's batches and of the nights before."""
    rows = sum(batch.rows for batch in batches)
    rejected = sum(sum(batch.rejected.values()) for batch in batches)
    *before, now = volumes
    before = [each for each in before if each][-USUAL:]  # nights in which nothing came tell nothing
    nulls = []
    for column in sorted({column for batch in batches for column in batch.nulls}):
        own = [batch for batch in batches if column in batch.nulls]
        nulls.append(sum(batch.nulls[column] for batch in own) / max(sum(batch.rows for batch in own), 1))
    return {
        "volume": now / median(before) if now and len(before) >= NIGHTS else None,
        "rejected": rejected / (rows + rejected) if rows + rejected else None,
        "nulls": max(nulls, default=None),
    }


def age_hours(dataset: Dataset) -> float | None:
    """Hours since its latest event; None where it has no times."""
    latest = _latest(dataset)
    now = dt.datetime.now(dt.timezone.utc).timestamp()
    return None if latest is None else (now - latest / 1e6) / 3600


def _of_both(new: Dataset, old: Dataset | None) -> dict[str, float | None]:
    if old is None:
        return {}
    return {
        "new_users": _share_of_new(new.users, old.users, "user_id"),
        "new_items": _share_of_new(new.items, old.items, "item_id"),
        "popularity": divergence(old.items, new.items, "item_id", "train_count"),
        "ratings": moved_ratings(new, old),
    }


def _latest(dataset: Dataset) -> int | None:
    """Microseconds of the latest event."""
    latest = [part.agg(F.unix_micros(F.max("timestamp"))).collect()[0][0] for part in _parts(dataset)]
    return max((each for each in latest if each is not None), default=None)


def _share_of_new(new: DataFrame, old: DataFrame, column: str) -> float:
    known = old.select(column, F.lit(1).alias("known"))
    return float(
        new.select(column).join(known, column, "left").agg(F.avg(F.isnull("known").cast("int"))).collect()[0][0]
    )


def moved_ratings(new: Dataset, old: Dataset) -> float | None:
    """How far the values of later events than the old dataset has are from those that it has; of all events, where they
    have no time. Days that both have would hide what is wrong with the last one."""
    column = "value" if old.explicit else "confidence"
    values = old.train.select(F.col(column).cast("double").alias("value"))
    parts = [part.select(F.col(column).cast("double").alias("value"), "timestamp") for part in _parts(new)]
    later = reduce(DataFrame.unionByName, parts)
    if (latest := _latest(old)) is not None:
        later = later.where(F.unix_micros("timestamp") > latest)
    key = F.col("value")
    if len(values.distinct().limit(_VALUES + 1).collect()) > _VALUES:
        edges = sorted({*values.approxQuantile("value", [n / 10 for n in range(1, 10)], 0.001)})
        key = sum((key > edge).cast("int") for edge in edges)  # type: ignore[assignment]
    old_counts, new_counts = (
        frame.groupBy(key.alias("value")).agg(F.count("*").alias("n")) for frame in (values, later)
    )
    return divergence(old_counts, new_counts, "value", "n")


def _parts(dataset: Dataset) -> tuple[DataFrame, DataFrame, DataFrame]:
    return dataset.train, dataset.validation, dataset.test
