"""Weights, duplicates, feedback and the k-core, each on a log small enough to work out by hand."""

import math
from datetime import datetime

import pytest
from pyspark.sql import functions as F

from sparkrec.config import ExplicitFeedback, ImplicitFeedback
from sparkrec.errors import PrepareError
from sparkrec.spark.data.interactions import core, deduplicate, to_feedback, weigh

pytestmark = pytest.mark.spark
SCHEMA = "user_id long, item_id long, rating double, timestamp timestamp, event string"


def at(second):
    return datetime(2024, 1, 1, 0, 0, second)


def log(spark, *rows):
    return spark.createDataFrame([(*row, None, None)[:5] for row in rows], SCHEMA)


def values(frame, *columns):
    return sorted(tuple(row[column] for column in columns) for row in frame.collect())


def test_event_weights_scale_ratings_and_zero_drops(spark):
    events = log(spark, (1, 1, 2.0, None, "buy"), (1, 2, 1.0, None, "view"), (1, 3, 1.0, None, "skip"))
    weighed = weigh(events, {"buy": 5.0, "view": 0.5, "skip": 0.0, "gift": 9.0})
    assert values(weighed, "item_id", "rating") == [(1, 10.0), (2, 0.5)]


def test_a_kind_of_event_without_a_weight_is_refused_by_name(spark):
    kinds = ["buy", "cart", "cart", None]
    events = log(spark, *[(1, item, 1.0, None, kind) for item, kind in enumerate(kinds)])
    message = r"lists 'buy', but there are events of kind 'cart' \(2 rows\), null \(1 rows\). Give each kind"
    with pytest.raises(PrepareError, match=message):
        weigh(events, {"buy": 1.0})
    with pytest.raises(PrepareError, match="event_weights lists none, but"):
        weigh(events, {})


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("last", [(1, 3.0, at(9)), (2, 1.0, at(1))]),
        ("max", [(1, 5.0, at(9)), (2, 1.0, at(1))]),
        ("sum", [(1, 10.0, at(9)), (2, 1.0, at(1))]),
        ("none", [(1, 2.0, at(9)), (1, 3.0, at(9)), (1, 5.0, at(1)), (2, 1.0, at(1))]),
    ],
)
def test_what_becomes_of_duplicates(spark, policy, expected):
    rows = [(1, 1, 5.0, at(1)), (1, 1, 2.0, at(9)), (1, 1, 3.0, at(9)), (1, 2, 1.0, at(1))]
    for order in (rows, rows[::-1]):
        frame = deduplicate(log(spark, *order), policy)
        assert values(frame, "item_id", "rating", "timestamp") == expected


def test_a_sum_does_not_depend_on_the_order_of_its_terms(spark):
    rows = [(1, 1, value) for value in (1e16, 1.0, -1e16, 0.1, 0.7)]
    sums = [deduplicate(log(spark, *order), "sum").collect()[0].rating for order in (rows, rows[::-1])]
    assert sums[0] == sums[1]


def test_implicit_feedback_is_one_with_a_confidence(spark):
    events = log(spark, (1, 1, 0.5), (1, 2, 1.0), (1, 3, 4.0))

    def confidences(**settings):
        frame = to_feedback(events, ImplicitFeedback(threshold=1.0, **settings))
        assert {row.value for row in frame.collect()} == {1.0}
        return values(frame, "item_id", "confidence")

    assert confidences() == [(2, 1.0), (3, 1.0)]
    assert confidences(confidence="linear", alpha=40.0) == [(2, 41.0), (3, 161.0)]
    expected = [(2, 1 + 2 * math.log(3)), (3, 1 + 2 * math.log(9))]
    assert confidences(confidence="log", alpha=2.0, epsilon=0.5) == [
        (item, pytest.approx(value)) for item, value in expected
    ]


def test_explicit_feedback_is_a_rating_on_a_scale(spark):
    events = log(spark, *[(1, item, float(item)) for item in range(1, 9)], (2, 1, 7.0), (2, 2, 7.0))

    def ratings(user, **settings):
        frame = to_feedback(events, ExplicitFeedback(**settings)).where(F.col("user_id") == user)
        assert {row.confidence for row in frame.collect()} == {1.0}
        return [value for _, value in values(frame, "item_id", "value")]

    assert ratings(1) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert ratings(1, scale="log") == [pytest.approx(math.log1p(item)) for item in range(1, 9)]
    assert ratings(1, scale="quantile", levels=4) == [1, 1, 2, 2, 3, 3, 4, 4]
    assert ratings(2, scale="quantile") == [3, 3]  # all alike: in the middle


def test_a_rating_without_a_logarithm_is_marked(spark):
    frame = to_feedback(log(spark, (1, 1, -0.5)), ExplicitFeedback(scale="log"))
    assert values(frame, "value") == [(None,)]
    frame = to_feedback(log(spark, (1, 1, -0.5)), ImplicitFeedback(confidence="linear"))
    assert values(frame, "confidence") == [(None,)]


def test_the_core_is_where_dropping_ends(spark):
    # Users 1-3 and items 1-3 are complete; a chain hangs on them, of which each round takes the last link.
    block = [(user, item, 1.0) for user in (1, 2, 3) for item in (1, 2, 3)]
    chain = [(3, 4, 1.0), (4, 4, 1.0), (4, 5, 1.0), (5, 5, 1.0), (5, 6, 1.0)]
    left = core(log(spark, *block, *chain), min_user=2, min_item=2)
    assert values(left, "user_id", "item_id") == [(user, item) for user in (1, 2, 3) for item in (1, 2, 3)]
    assert left.columns == log(spark, *block).columns
    one_side = core(log(spark, *block, *chain), min_user=3, min_item=1)
    assert {user for (user,) in values(one_side, "user_id")} == {1, 2, 3}


def test_a_core_of_nothing_says_what_there_was_and_what_to_lower(spark):
    message = (
        "nothing is left of 4 interactions of 2 users with 3 items when each user needs 2 and each item 3: "
        "the most that a user has is 3, an item 2. Lower min_user_interactions or min_item_interactions"
    )
    with pytest.raises(PrepareError, match=message):
        core(log(spark, (1, 1, 1.0), (1, 2, 1.0), (1, 3, 1.0), (2, 1, 1.0)), min_user=2, min_item=3)
