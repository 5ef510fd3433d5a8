"""Folds are drawn row by row."""

import pytest
from pyspark.sql import functions as F

from sparkrec.spark.data.folds import with_folds, without_and_of

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("everywhere")]


@pytest.fixture
def events(spark):
    rows = spark.range(300).select((F.col("id") % 31).alias("user"), (F.col("id") * 7 % 40).alias("item"), "id")
    at = F.when(F.col("id") % 5 > 0, F.timestamp_micros(F.col("id") * 123_456_789)).alias("timestamp")
    return rows.select("user", "item", at, (F.col("id") / 3).cast("float").alias("value"))


@pytest.mark.parametrize("seed", [0, 17, 2**40])
def test_the_fold_of_a_row_is_that_of_sparks_hash(events, seed):
    drawn = F.pmod(F.xxhash64(F.lit(seed), "user", "item", "timestamp"), F.lit(4))
    expected = sorted(map(tuple, events.withColumn("fold", drawn).collect()), key=str)
    assert sorted(map(tuple, with_folds(events.repartition(3), seed, 4).collect()), key=str) == expected


def test_each_row_is_in_one_fold_and_in_the_rest_of_all_others(events):
    marked = with_folds(events, 0, 3)
    parts = [without_and_of(marked, fold) for fold in range(3)]
    for others, own in parts:
        assert others.columns == own.columns == events.columns
        assert others.exceptAll(events).isEmpty()
        assert others.count() + own.count() == 300
        assert own.count() > 60
    assert sum(own.count() for _, own in parts) == 300
