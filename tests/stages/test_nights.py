"""What a night goes by: limits that nights have made, what batches tell, guards of the gate, who was served when."""

import datetime as dt

import pytest
from pyspark.sql import Row

from sparkrec.config import Check, DataChecks, DriftChecks, GateSettings
from sparkrec.spark.data.dataset import Dataset
from sparkrec.stages.batches import Batch
from sparkrec.stages.retraining.data_checks import moved_ratings, of_batches
from sparkrec.stages.retraining.drift import promised, term_at
from sparkrec.stages.retraining.findings import judged, limit_of
from sparkrec.stages.retraining.gate import guards, margins_kept


def test_a_limit_that_is_not_given_follows_from_three_nights():
    checks = DataChecks(new_users=Check(limit=0.2))
    assert limit_of(checks, "rejected", [0.01, 0.02]) == 0.05
    assert limit_of(checks, "rejected", [0.9, 0.9, 0.01, 0.02, 0.03, 0.02, 0.02, 0.9, 0.02]) == pytest.approx(0.06)
    assert limit_of(checks, "rejected", [0.0, 0.0, 0.0]) == pytest.approx(0.005)  # never nothing at all
    assert limit_of(checks, "new_users", [0.0, 0.0, 0.0]) == 0.2
    assert limit_of(checks, "volume", [0.1, 0.1, 0.1]) == 0.5  # of the median itself
    assert limit_of(DriftChecks(), "served", [0.1, 0.1, 0.1]) == 0.5


def test_every_check_has_a_limit_to_begin_with():
    for checks in (DataChecks, DriftChecks):
        assert checks.begins.keys() == checks.model_fields.keys()
        assert checks.at_least <= checks.model_fields.keys()


def test_what_is_beyond_a_limit_fails_or_is_warned_of_or_not_looked_at():
    checks = DataChecks(ratings=Check(beyond="off"), nulls=Check(limit=0.1, beyond="fail"))
    values = {"volume": 0.4, "rejected": 0.05, "nulls": 0.2, "age_hours": 50.0, "ratings": 1.0}
    found = {each.check: each for each in judged("checks", checks, values, {})}
    assert {name: each.verdict for name, each in found.items()} == {
        "volume": "failed", "rejected": "fine", "nulls": "failed", "age_hours": "warned", "new_users": "unknown",
        "new_items": "unknown", "popularity": "unknown",
    }  # fmt: skip
    assert str(found["volume"]) == "volume is 0.4, expected at least 0.5 (checks.volume)"
    assert str(found["nulls"]) == "nulls is 0.2, expected at most 0.1 (checks.nulls)"


def test_nulls_are_a_share_of_the_rows_that_could_have_a_value():
    batches = [Batch("a", 100, {}, nulls={"timestamp": 0, "event": 10}), Batch("b", 300, {}, nulls={"timestamp": 20})]
    assert of_batches(batches, [1])["nulls"] == pytest.approx(0.1)
    assert of_batches([Batch("a", 100, {})], [1])["nulls"] is None


def test_a_challenger_that_leaves_too_many_to_what_is_popular_is_not_promoted():
    metrics = {f"{run}_{what}": 0.8 for run in ("champion", "challenger") for what in ("coverage@10", "served")}
    asked = GateSettings(min_served=0.9)
    assert guards(asked, metrics, 10) == ["80.0% of users are answered (gate.min_served: 90.0%)"]
    assert guards(GateSettings(min_served=0.8), metrics, 10) == []


def test_a_challenger_that_is_worse_in_one_segment_is_not_promoted():
    """Better for all, and for those who did most; for those who did least nobody can be sure."""
    asked = GateSettings(margin=0.02, segments={"users:1/3": 0.1, "users:3/3": 0.1})
    ends = {"all": (0.01, 0.03), "users:1/3": (-0.05, 0.02), "users:2/3": (-0.9, -0.8), "users:3/3": (0.02, 0.06)}
    rows = [
        {"segment": each, "difference": (low + high) / 2, "low": low, "high": high, "users": 300}
        for each, (low, high) in ends.items()
    ]
    champion = dict.fromkeys(ends, 0.2)
    metrics, failed = margins_kept(asked, rows, champion)
    assert failed == ["ndcg@10 users:1/3 -0.0150 (-0.0500 to +0.0200) may be worse than -0.0200"]
    assert metrics["margin"] == 0.02
    assert metrics["margin users:1/3"] == 0.1
    assert "difference users:2/3" not in metrics  # it has no margin
    few = [{**row, "users": 20} if row["segment"] == "users:3/3" else row for row in rows]
    assert "20 users users:3/3 tell too little (gate.min_users: 30)" in margins_kept(asked, few, champion)[1]


def change(number, day, model, **metrics):
    at = dt.datetime(2026, 3, day, tzinfo=dt.timezone.utc).astimezone().replace(tzinfo=None)  # as Spark gives it
    return Row(number=number, at=at, model=model, metrics=metrics)


def day(n):
    return int(dt.datetime(2026, 3, n, tzinfo=dt.timezone.utc).timestamp() * 1e6)


CHANGES = [
    change(1, 2, "a"),
    change(2, 4, "b", **{"challenger_ndcg@10": 0.2}),
    change(3, 6, "c", **{"challenger_ndcg@10": 0.3}),
    change(4, 8, "b"),
]


def test_events_are_of_the_champion_who_was_served_then():
    assert term_at(CHANGES, day(1)) is None
    assert term_at(CHANGES, day(5)) == (CHANGES[1], day(4), day(5))
    assert term_at(CHANGES, day(9)) == (CHANGES[3], day(8), day(9))
    assert term_at([], day(9)) is None


def test_a_champion_that_came_back_has_promised_what_it_had_promised_before():
    assert promised(CHANGES, CHANGES[3], "ndcg@10") == 0.2
    assert promised(CHANGES, CHANGES[2], "ndcg@10") == 0.3
    assert promised(CHANGES, CHANGES[0], "ndcg@10") is None
    assert promised(CHANGES, CHANGES[3], "recall@10") is None


@pytest.mark.spark
@pytest.mark.parametrize(("levels", "later"), [(5, [10.0]), (500, [499.5, 500.0])])
def test_other_ratings_than_before_are_noticed_though_most_days_are_the_same(spark, levels, later):
    """Ratings by level, or of so many values that deciles are compared."""

    def dataset(rows):
        frame = spark.createDataFrame(rows, "value float, timestamp timestamp")
        days = [int(each.timestamp() * 1e6) for _, each in rows]
        manifest = {"settings": {"feedback": {"kind": "explicit"}}, "times": {"train": [min(days), max(days)]}}
        return Dataset("shop@1", "", manifest, frame, frame.limit(0), frame.limit(0), frame, frame)

    def at(day):
        return dt.datetime(2026, 3, day, tzinfo=dt.timezone.utc)

    old = [(float(n % levels), at(1)) for n in range(1000)]
    same = [(float(n % levels), at(2)) for n in range(50 * levels // 5)]
    assert moved_ratings(dataset(old + same), dataset(old)) == pytest.approx(0.0, abs=0.01)
    other = [(later[n % len(later)], at(2)) for n in range(50)]
    assert moved_ratings(dataset(old + other), dataset(old)) > 0.5
    assert moved_ratings(dataset(old), dataset(old)) is None
