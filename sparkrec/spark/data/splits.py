"""Which interactions are for training, for validation and for the test.

What is drawn at random is drawn by a hash of (seed, user, item, timestamp): neither the order nor the
partitioning of rows changes it.
"""

from __future__ import annotations

import datetime as dt

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from sparkrec.config import ColdItems, FoldSplit, LeaveLastOut, RatioSplit, RecentDays, Split, TimeSplit, instant
from sparkrec.errors import PrepareError

PARTS = ("train", "validation", "test")
_KEY = ("user_id", "item_id", "timestamp")


def split(frame: DataFrame, settings: Split) -> DataFrame:
    """The frame with a column `part`: train, validation or test.

    frame  user_id, item_id, timestamp and any further columns that can be ordered

    A given split has its test interactions elsewhere: here all is train or validation.
    """
    return frame.withColumn("part", _part(frame, settings))


def _part(frame: DataFrame, settings: Split) -> Column:
    if isinstance(settings, TimeSplit):
        return _by_time(settings)
    assert not isinstance(settings, RecentDays), "it is `dated` first"
    if isinstance(settings, ColdItems):
        drawn = F.pmod(F.xxhash64(F.lit(settings.seed), "item_id"), F.lit(1_000_000))
        return F.when(drawn < round(settings.test * 1_000_000), "test").otherwise("train")
    n = F.count("*").over(Window.partitionBy("user_id"))
    if isinstance(settings, LeaveLastOut):
        latest_first = [F.desc("timestamp"), F.desc("item_id"), *_others(frame)]
        enough = n >= settings.test + settings.validation + settings.min_train
        test = F.when(enough, settings.test).otherwise(0)
        return _by_rank(latest_first, test, F.when(enough, settings.validation).otherwise(0))

    drawn = F.xxhash64(F.lit(settings.seed), *_KEY)
    if isinstance(settings, FoldSplit):
        return F.when(F.pmod(drawn, F.lit(settings.folds)) == settings.fold, "test").otherwise("train")
    at_random = [drawn, F.col("item_id"), F.col("timestamp"), *_others(frame)]
    if isinstance(settings, RatioSplit):
        test = F.least(F.round(n * settings.test), n - 1)
        return _by_rank(at_random, test, F.least(F.round(n * settings.validation), n - 1 - test))
    if not settings.validation and not settings.validation_items:
        return F.lit("train")
    wanted = F.greatest(F.round(n * settings.validation), F.lit(settings.validation_items))
    return _by_rank(at_random, F.lit(0), F.least(wanted, n - 1))


def _others(frame: DataFrame) -> list[Column]:
    """The columns that tell apart rows of one user, item and time."""
    return [F.col(name) for name in frame.columns if name not in _KEY]


def _by_rank(order: list[Column], test: Column, validation: Column) -> Column:
    """Each user's first `test` interactions are test, the next `validation` validation, the rest train."""
    rank = F.row_number().over(Window.partitionBy("user_id").orderBy(*order))
    return F.when(rank <= test, "test").when(rank <= test + validation, "validation").otherwise("train")


def _by_time(settings: TimeSplit) -> Column:
    def since(text: str) -> Column:
        return F.col("timestamp") >= F.lit(instant(text))

    part = F.when(since(settings.test_from), "test")
    if settings.validation_from is not None:
        part = part.when(since(settings.validation_from), "validation")
    return part.otherwise("train")


def needs_time(settings: Split) -> bool:
    """Whether a split goes by timestamps."""
    return isinstance(settings, LeaveLastOut | TimeSplit | RecentDays)


def dated(settings: Split, *events: DataFrame) -> Split:
    """The split, with instants instead of days before the latest of `events`, which have a `timestamp`."""
    if not isinstance(settings, RecentDays):
        return settings
    # As a number: the Python of a driver outside UTC would show its own time.
    found = [each.agg(F.unix_micros(F.max("timestamp"))).collect()[0][0] for each in events]
    latest = max((each for each in found if each is not None), default=None)
    if latest is None:
        raise PrepareError("split 'recent' counts back from the latest event, but there is none. Ingest some first.")
    return settings.until(dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc) + dt.timedelta(microseconds=latest))


def check(rows: dict[str, int], frame: DataFrame, settings: Split) -> None:
    """Raise PrepareError when there is nothing to train on, or nothing to test with though it was asked for.

    rows   number of interactions of each part
    frame  the interactions that were split
    """
    wants_test = bool(settings.test) if isinstance(settings, LeaveLastOut | RatioSplit) else True
    if rows["train"] and (rows["test"] or not wants_test):
        return
    lacking = "test" if rows["train"] else "train"
    total = sum(rows.values())
    raise PrepareError(
        f"split {settings.kind!r} leaves no {lacking} interactions among {total:,}: "
        + _reason(lacking, frame, settings)
    )


def _reason(lacking: str, frame: DataFrame, settings: Split) -> str:
    if isinstance(settings, LeaveLastOut):
        need = settings.test + settings.validation + settings.min_train
        return (
            f"no user has the {need} that it takes (test {settings.test}, validation {settings.validation}, "
            f"min_train {settings.min_train}). Lower these, or choose split 'fold' or 'time'."
        )
    if isinstance(settings, TimeSplit | RecentDays):
        # As text: the Python of a driver outside UTC would show its own time.
        first, last = frame.agg(*(end("timestamp").cast("string") for end in (F.min, F.max))).collect()[0]
        if isinstance(settings, RecentDays):
            days = settings.test + settings.validation
            return (
                f"they run from {first} to {last} (UTC), and none is more than {days:g} days before the latest. Lower "
                "split.test and split.validation, or ingest more."
            )
        side = "after" if lacking == "test" else "before"
        key = "test_from" if lacking == "test" or settings.validation_from is None else "validation_from"
        return (
            f"they run from {first} to {last} (UTC), and none is {side} {key} {getattr(settings, key)}. "
            f"Choose {'an earlier' if lacking == 'test' else 'a later'} split.{key}."
        )
    if isinstance(settings, RatioSplit):
        return (
            f"no user has enough for a share of {settings.test} that leaves one to train on. "
            "Raise split.test, or choose split 'fold'."
        )
    if isinstance(settings, ColdItems):
        return "the share of items is too small or too large for so few items. Change split.test or split.seed."
    if isinstance(settings, FoldSplit):
        share = "none" if lacking == "test" else "all"
        return f"fold {settings.fold} of {settings.folds} got {share} of them. Lower split.folds or change split.seed."
    return f"table {settings.test!r} has none that event_weights and feedback keep. Ingest it, or loosen these."
