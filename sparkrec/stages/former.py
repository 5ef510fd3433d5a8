"""What a dataset has in common with the one that was made before it, so that no more is made anew than has changed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.config import ExplicitFeedback, GivenSplit, LeaveLastOut, PrepareSettings, RatioSplit, RecentDays
from sparkrec.errors import InputError
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.data.interactions import PAIR
from sparkrec.spark.data.splits import PARTS
from sparkrec.spark.data.touched import touched
from sparkrec.spark.platform.failures import FAILURES, reason
from sparkrec.spark.platform.keeping import checkpointed
from sparkrec.spark.platform.lake import Lake, Run, code_version

log = logging.getLogger(__name__)

WORTH = 1_000_000
"""A dataset of fewer rows is made as a whole, which takes no longer than to find out what has changed."""
_SHARE = 0.2
"""Of the users, or of the rows, above which all are made anew."""
_FOR_ALL = 2_000_000
"""So many keys each task gets whole, so that other rows need not move."""


@dataclass(frozen=True)
class Former:
    """A dataset of the same settings, and what has changed since in what it was made of."""

    dataset: Dataset
    touched: DataFrame
    """(user_id) or (user_id, item_id) whose events are others; of all other keys its rows are as they would be made."""
    n: int
    """Rows of `touched`."""

    @property
    def what(self) -> str:
        """For people: what is one of `touched`."""
        return "pairs of user and item" if self.touched.columns == PAIR else "users"

    @property
    def told(self) -> dict[str, Any]:
        """For the manifest: which dataset it is, and for what rows are made anew."""
        return {"from": self.dataset.reference, "but_for": f"{self.n} {self.what}"}

    def only_touched(self, events: DataFrame) -> DataFrame:
        """The events that may come to other rows, computed once."""
        return checkpointed(events.join(self._whole(self.touched), self.touched.columns, "left_semi"))

    def _whole(self, keys: DataFrame) -> DataFrame:
        return F.broadcast(keys) if self.n <= _FOR_ALL else keys

    def rest(self, ids: dict[str, DataFrame]) -> DataFrame:
        """(user, item, value, confidence, timestamp, part): the rows of the dataset that are as they were.

        ids  (<side>, <side>_id) by side
        """
        keys = self.touched
        columns = [column.removesuffix("_id") for column in keys.columns]
        for side in columns:
            keys = keys.join(ids[side], f"{side}_id")
        splits = self.dataset.train, self.dataset.validation, self.dataset.test
        parts = [rows.withColumn("part", F.lit(part)) for part, rows in zip(PARTS, splits, strict=True)]
        all_parts = parts[0].unionByName(parts[1]).unionByName(parts[2])
        return all_parts.join(self._whole(keys.select(*columns)), columns, "left_anti")


class _MadeAsAWhole(Exception):
    """Why no row of a former dataset is taken over."""


def find(settings: PrepareSettings, lake: Lake, run: Run) -> Former | None:
    """The dataset that was made before under the name of a run, and what has changed since; None, and the reason in the
    log, where all is to be made anew."""
    try:
        before = lake.finished_run("prepare", settings.dataset)
    except InputError:
        return None
    if (before.manifest or {})["counts"]["rows"] < WORTH:
        return None
    try:
        former = _compared(settings, lake, before, run)
    except _MadeAsAWhole as why:
        log.info("dataset %s is made as a whole: %s", run.reference, why)
        return None
    log.info("dataset %s: anew for %d %s, the rest is of %s", run.reference, former.n, former.what, before.reference)
    return former


def _compared(settings: PrepareSettings, lake: Lake, before: Run, run: Run) -> Former:
    if obstacle := _obstacle(settings, before, run):
        raise _MadeAsAWhole(obstacle)
    try:
        dataset = Dataset.open(lake, before.reference)
        pins = [each.inputs["interactions"] for each in (before, run)]
        events = [lake.table(pin["table"], pin["version"]) for pin in pins]
    except InputError as error:
        raise _MadeAsAWhole(str(error)) from None
    names = [*PAIR, "rating", "timestamp", *(["event"] if settings.event_weights is not None else [])]
    keys = ["user_id"] if _goes_by_user(settings) else PAIR
    try:
        found = checkpointed(touched(events[0], events[1], keys, names))
    except FAILURES as error:  # files of the version before may have been vacuumed
        raise _MadeAsAWhole(f"version {pins[0]['version']} of the table cannot be read: {reason(error)}") from None
    former = Former(dataset, found, found.count())
    every = dataset.manifest["counts"]["rows" if keys == PAIR else "users"]
    if former.n > _SHARE * every:
        raise _MadeAsAWhole(f"{former.n:,} {former.what} of {every:,} have changed since {before.reference}")
    return former


def _obstacle(settings: PrepareSettings, before: Run, run: Run) -> str | None:
    """Why no row of a dataset can be taken over; None: some may."""
    if isinstance(settings.split, GivenSplit):
        return "split 'given' has tables of its own"
    if settings.features is not None:
        return "features are fitted to all that is trained on"
    if settings.min_item_interactions > 1:
        return "with min_item_interactions an item depends on all its users"
    if isinstance(settings.split, RecentDays) and settings.min_user_interactions > 1:
        return "split 'recent' counts back from the latest event, of users without min_user_interactions, too"
    ids = [each.inputs["interactions"]["id"] for each in (before, run)]
    others = [{**each.settings, "version": None} for each in (before, run)]
    if ids[0] != ids[1] or others[0] != others[1] or (before.manifest or {})["code"] != code_version():
        return f"{before.reference} was made of another table, with other settings or by another version of sparkrec"
    return None


def _goes_by_user(settings: PrepareSettings) -> bool:
    """Whether a row depends on all that its user did, and not on what it did with the item alone."""
    quantiles = isinstance(settings.feedback, ExplicitFeedback) and settings.feedback.scale == "quantile"
    return quantiles or settings.min_user_interactions > 1 or isinstance(settings.split, LeaveLastOut | RatioSplit)
