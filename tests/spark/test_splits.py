"""Which interactions each split holds out."""

from datetime import datetime, timedelta, timezone

import pytest
from pydantic import ValidationError
from pyspark.sql import functions as F

from sparkrec.config import ColdItems, FoldSplit, GivenSplit, LeaveLastOut, RatioSplit, RecentDays, TimeSplit, instant
from sparkrec.errors import PrepareError
from sparkrec.spark.data.splits import check, dated, split

pytestmark = pytest.mark.spark
SCHEMA = "user_id long, item_id long, timestamp timestamp, value float"


def at(second):
    return datetime(2024, 1, 1, 0, 0, second)


@pytest.fixture(scope="module")
def log(spark):
    """User u has u interactions, u = 1 to 12, one a second."""
    rows = [(user, 100 + item, at(item), 1.0) for user in range(1, 13) for item in range(user)]
    return spark.createDataFrame(rows, SCHEMA)


def parts(frame):
    """(user, item) to part."""
    return {(row.user_id, row.item_id): row.part for row in frame.collect()}


def sizes(frame, user):
    """Rows of a user in train, validation and test."""
    found = [part for (owner, _), part in parts(frame).items() if owner == user]
    return tuple(found.count(part) for part in ("train", "validation", "test"))


def test_leave_last_out_holds_out_the_latest_and_ties_go_by_item(spark):
    rows = [(1, 10, at(1), 1.0), (1, 12, at(2), 1.0), (1, 11, at(2), 1.0), (1, 13, at(0), 1.0)]
    rows += [(2, 10, at(1), 1.0), (2, 11, at(2), 1.0)]
    frame = spark.createDataFrame(rows, SCHEMA)
    assert parts(split(frame, LeaveLastOut())) == {
        (1, 12): "test",
        (1, 11): "validation",
        (1, 10): "train",
        (1, 13): "train",
        (2, 10): "train",  # too few to give two away
        (2, 11): "train",
    }


def test_leave_last_out_takes_nothing_from_users_who_would_keep_too_little(log):
    frame = split(log, LeaveLastOut(test=2, validation=1, min_train=3))
    assert [sizes(frame, user) for user in (5, 6, 12)] == [(5, 0, 0), (3, 1, 2), (9, 1, 2)]


def test_a_ratio_is_exact_for_each_user_and_leaves_one_to_train_on(log):
    frame = split(log, RatioSplit(test=0.2, validation=0.1)).persist()
    assert [sizes(frame, user) for user in (1, 2, 3, 8, 10)] == [
        (1, 0, 0),
        (2, 0, 0),
        (2, 0, 1),
        (5, 1, 2),
        (7, 1, 2),
    ]
    assert sizes(split(log, RatioSplit(test=0.9, validation=0.05)), 12) == (1, 0, 11)


def test_a_random_split_depends_on_its_seed_and_on_nothing_else(log):
    shuffled = log.orderBy(F.desc("item_id")).repartition(5, "timestamp")
    for settings, other_seed in (
        (RatioSplit(test=0.5), RatioSplit(test=0.5, seed=1)),
        (FoldSplit(folds=2), FoldSplit(folds=2, seed=1)),
        (GivenSplit(test="t", validation=0.5), GivenSplit(test="t", validation=0.5, seed=1)),
    ):
        once = parts(split(log, settings))
        assert parts(split(shuffled, settings)) == once
        assert parts(split(log, other_seed)) != once


def test_every_interaction_is_in_the_test_of_one_fold(log):
    tests = []
    for fold in range(3):
        found = parts(split(log, FoldSplit(folds=3, fold=fold)))
        tests += [pair for pair, part in found.items() if part == "test"]
        assert set(found.values()) == {"train", "test"}
    assert len(tests) == len(set(tests)) == 78


def test_rows_that_differ_in_nothing_but_their_value_are_told_apart(spark):
    rows = [(1, 10, at(1), float(value)) for value in range(6)]
    frames = [spark.createDataFrame(each, SCHEMA) for each in (rows, rows[::-1])]
    held_out = [split(frame, RatioSplit(test=0.5)).where("part = 'test'").collect() for frame in frames]
    assert sorted(row.value for row in held_out[0]) == sorted(row.value for row in held_out[1])


def test_cold_items_are_held_out_with_all_they_have(spark):
    frame = spark.range(6000).selectExpr("id % 10 AS user_id", "id % 600 AS item_id", "NULL AS timestamp")
    found = split(frame, ColdItems(test=0.3)).groupBy("item_id").agg(F.collect_set("part").alias("parts")).collect()
    assert {tuple(row.parts) for row in found} == {("train",), ("test",)}
    assert sum(row.parts == ["test"] for row in found) == pytest.approx(180, abs=40)


def test_a_time_split_holds_out_everything_from_an_instant_on(log):
    settings = TimeSplit(test_from="2024-01-01T00:00:10Z", validation_from="2024-01-01T01:00:08+01:00")
    assert [sizes(split(log, settings), user) for user in (8, 9, 11, 12)] == [
        (8, 0, 0),
        (8, 1, 0),
        (8, 2, 1),
        (8, 2, 2),
    ]


def test_recent_days_are_counted_back_from_the_latest_event(log):
    latest = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(
        seconds=log.agg(F.max(F.unix_seconds("timestamp"))).head()[0]
    )
    settings = dated(RecentDays(test=2.0, validation=1.5), log)
    assert instant(settings.test_from) == latest - timedelta(days=2)
    assert instant(settings.validation_from) == latest - timedelta(days=3.5)
    assert dated(RecentDays(test=2.0), log).validation_from is None
    with pytest.raises(PrepareError, match="counts back from the latest event, but there is none"):
        dated(RecentDays(), log.limit(0))
    with pytest.raises(PrepareError, match=r"none is more than 90000 days before the latest. Lower split.test"):
        check({"train": 0, "validation": 0, "test": 5}, log, RecentDays(test=90000))


def test_a_given_split_draws_its_validation_from_train_and_leaves_one(log):
    assert set(parts(split(log, GivenSplit(test="t"))).values()) == {"train"}
    frame = split(log, GivenSplit(test="t", validation_items=2))
    assert [sizes(frame, user) for user in (1, 2, 3, 12)] == [(1, 0, 0), (1, 1, 0), (1, 2, 0), (10, 2, 0)]
    frame = split(log, GivenSplit(test="t", validation=0.25, validation_items=2))
    assert [sizes(frame, user) for user in (1, 2, 3, 12)] == [(1, 0, 0), (1, 1, 0), (1, 2, 0), (9, 3, 0)]


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (
            (9, 0, 0),
            LeaveLastOut(test=2),
            r"no user has the 4 that it takes \(test 2, validation 1, min_train 1\)",
        ),
        ((9, 0, 0), RatioSplit(test=0.01), "no user has enough for a share of 0.01.*Raise split.test"),
        ((9, 0, 0), FoldSplit(), "fold 0 of 5 got none of them. Lower split.folds"),
        ((0, 0, 1), FoldSplit(), "'fold' leaves no train interactions among 1: fold 0 of 5 got all of them"),
        ((9, 0, 0), GivenSplit(test="later"), "table 'later' has none that event_weights and feedback keep"),
        (
            (78, 0, 0),
            TimeSplit(test_from="2025-01-01"),
            "'time' leaves no test interactions among 78: they run from 2024-01-01 00:00:00 to "
            "2024-01-01 00:00:11 .UTC., and none is after test_from 2025-01-01. Choose an earlier split.test",
        ),
        (
            (0, 5, 73),
            TimeSplit(test_from="2023-01-01", validation_from="2022-01-01"),
            "none is before validation_from 2022-01-01. Choose a later split.validation_from",
        ),
    ],
)
def test_a_split_that_leaves_a_part_empty_says_what_to_change(log, rows, settings, message):
    with pytest.raises(PrepareError, match=message):
        check(dict(zip(("train", "validation", "test"), rows, strict=True)), log, settings)


def test_no_test_is_fine_when_none_was_asked_for(log):
    check({"train": 1, "validation": 0, "test": 0}, log, LeaveLastOut(test=0, validation=0))
    check({"train": 1, "validation": 0, "test": 0}, log, RatioSplit(test=0.0))


def test_instants_that_are_none_or_out_of_order_are_refused():
    with pytest.raises(ValidationError, match="'last week' is not an ISO 8601 timestamp"):
        TimeSplit(test_from="last week")
    with pytest.raises(ValidationError, match="2024-02-01 is not before test_from, 2024-01-01"):
        TimeSplit(test_from="2024-01-01", validation_from="2024-02-01")
