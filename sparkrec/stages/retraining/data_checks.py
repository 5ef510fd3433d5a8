"""Whether the data of a night may be trained on: compared with the nights before, and with the champion's dataset."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from functools import reduce
from statistics import median

from sparkrec.config import DataChecks
from sparkrec.errors import InputError
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.data.splits import PARTS
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.platform.few import narrowed
from sparkrec.spark.platform.lake import Lake
from sparkrec.spark.runner import Rows
from sparkrec.stages.batches import Batch
from sparkrec.stages.retraining.distributions import Later, divergence, histogram, moved
from sparkrec.stages.retraining.findings import NIGHTS, USUAL, found_before, judged, settle


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
    span = dataset.times(*PARTS)
    now = dt.datetime.now(dt.timezone.utc).timestamp()
    return None if span is None else (now - span[1] / 1e6) / 3600


def _of_both(new: Dataset, old: Dataset | None) -> dict[str, float | None]:
    if old is None:
        return {}

    def plan(new_users: Rows, old_users: Rows, new_items: Rows, old_items: Rows) -> dict[str, float | None]:
        return {
            "new_users": new_users.without(old_users, "user_id").count() / new_users.count(),
            "new_items": new_items.without(old_items, "item_id").count() / new_items.count(),
            "popularity": divergence(old_items, new_items, "item_id", "train_count"),
        }

    users = [narrowed(dataset.users, "user_id") for dataset in (new, old)]
    items = [narrowed(dataset.items, "item_id", "train_count") for dataset in (new, old)]
    return carry_out("checks", plan, *users, *items) | {"ratings": moved_ratings(new, old)}


def moved_ratings(new: Dataset, old: Dataset) -> float | None:
    """How far the values of later events than the old dataset has are from those that it has; of all events, where they
    have no time. Days that both have would hide what is wrong with the last one."""
    column = "value" if old.explicit else "confidence"
    span = old.times(*PARTS)
    after = None if span is None else span[1]
    parts = []
    for part in PARTS:
        of_part = new.times(part)
        if after is None or (of_part is not None and of_part[1] > after):
            parts.append(narrowed(getattr(new, part), column, "timestamp"))

    def plan(before: Rows, *parts: Rows) -> float | None:
        later = [part.map_rows(Later(column, part.kind(column), after)) for part in parts]
        return moved(histogram(before, column), histogram(reduce(lambda one, other: one.union(other), later), "value"))

    return carry_out("ratings", plan, narrowed(old.train, column), *parts) if parts else None
