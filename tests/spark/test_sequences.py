"""Sequences and histories on Spark."""

import numpy as np
import pytest
from pyspark.sql import functions as F

from sparkrec.config import SequenceSettings
from sparkrec.spark.data.sequences import encode_items, histories, sequences

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("everywhere")]


def log(spark, rows):
    """(user, item, timestamp) of (user, item, seconds)."""
    frame = spark.createDataFrame(rows, "user long, item long, at double")
    return frame.select("user", "item", F.timestamp_micros((F.col("at") * 1e6).cast("long")).alias("timestamp"))


def walks(n_users=40, seed=0):
    rng = np.random.default_rng(seed)
    return [
        (user, int(rng.integers(1000)), float(time))
        for user in range(n_users)
        for time in np.cumsum(rng.integers(1, 9, rng.integers(1, 12)))
    ]


def test_sequences_are_in_time_order_whatever_the_order_of_the_log(spark):
    rows = walks()
    cut = SequenceSettings(length=4)
    found = [
        {(row.user, row.session): row["items"] for row in sequences(frame, cut).collect()}
        for frame in (log(spark, rows).coalesce(1), log(spark, rows[::-1]).repartition(5))
    ]
    by_user = {}
    for user, item, _ in rows:
        by_user.setdefault(user, []).append(item)
    expected = {(user, 0): items[-5:] for user, items in by_user.items() if len(items) > 1}
    assert found[0] == found[1] == expected


def test_events_of_one_time_go_by_item(spark):
    rows = [(1, item, 5.0) for item in (9, 2, 7, 4)] + [(1, 1, 6.0), (1, 8, 4.0)]
    assert [row["items"] for row in sequences(log(spark, rows), SequenceSettings(length=50)).collect()] == [
        [8, 2, 4, 7, 9, 1]
    ]
    assert histories(log(spark, rows), SequenceSettings(length=3)).collect()[0]["items"] == [7, 9, 1]


def test_windows_follow_one_another_and_a_pause_parts_them(spark):
    rows = [(1, item, float(item)) for item in (*range(5), *range(100, 103), 500)]
    windows = (
        sequences(log(spark, rows), SequenceSettings(length=2, targets=1, session_gap=50)).orderBy("place").collect()
    )
    assert [(row.session, row["items"]) for row in windows] == [
        (0, [0, 1, 2]),
        (0, [1, 2, 3]),
        (0, [2, 3, 4]),
        (1, [100, 101, 102]),
    ]
    asking = histories(log(spark, rows[:-1]), SequenceSettings(length=50, session_gap=50)).collect()
    assert [row["items"] for row in asking] == [[100, 101, 102]]
    one_event = histories(log(spark, rows), SequenceSettings(length=50, session_gap=50)).collect()
    assert [row["items"] for row in one_event] == [[500]]


def test_items_that_are_not_known_are_left_out_and_so_is_who_has_no_other(spark):
    rows = spark.createDataFrame([(1, [5, 8, 5, 9]), (2, [8])], "user long, items array<long>")
    found = encode_items(rows, np.array([3, 5, 9])).collect()
    assert [(row.user, row["items"]) for row in found] == [(1, [1, 1, 2])]
    assert not encode_items(rows, np.zeros(0, np.int64)).collect()


def test_a_user_of_very_many_events_is_cut_like_others(spark):
    """It is sorted by Spark and then streamed; as one row, a list of ten times as many is what a task stumbles over."""
    n = 300_000
    rows = spark.range(n).select(
        F.when(F.col("id") % 1000 == 0, 2).otherwise(1).cast("long").alias("user"),
        (F.col("id") % 977).alias("item"),
        F.timestamp_seconds(F.col("id") * 7919 % n).alias("timestamp"),
    )
    windows = sequences(rows, SequenceSettings(length=5, targets=3)).groupBy("user").count().collect()
    assert {row.user: row["count"] for row in windows} == {1: n - n // 1000 - 7, 2: n // 1000 - 7}
    assert all(len(row["items"]) == 51 for row in sequences(rows, SequenceSettings(length=50)).collect())
    assert {row.user: len(row["items"]) for row in histories(rows, SequenceSettings(length=50)).collect()} == {
        1: 50,
        2: 50,
    }
