"""Which rows a fit keeps back."""

import datetime as dt

import numpy as np
import pytest
from pyspark.sql import Window
from pyspark.sql import functions as F

from sparkrec.spark.data import keeping_back
from sparkrec.spark.in_place import carry_out

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("everywhere")]


@pytest.mark.parametrize("most", [10_000, 7])
def test_the_last_row_of_who_has_enough_is_kept_back_as_a_query_finds_it(spark, monkeypatch, most):
    monkeypatch.setattr(keeping_back, "_USERS", most)
    rng = np.random.default_rng(0)
    start = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)
    rows = {
        (user, int(rng.integers(40)) if rng.random() < 0.9 else 1000 + user): start
        + dt.timedelta(days=int(rng.integers(9)))
        for user in range(40)
        for _ in range(rng.integers(2, 9))
    }
    rows = [(*pair, None if rng.random() < 0.2 else at) for pair, at in rows.items()]
    frame = spark.createDataFrame(rows, "user long, item long, timestamp timestamp").repartition(3)

    def plan(rows):
        return [part.frame() for part in keeping_back.keep_back(rows)]

    train, kept = (sorted(map(tuple, part.select("user", "item").collect())) for part in carry_out("keep", plan, frame))
    of_user, of_item = Window.partitionBy("user"), Window.partitionBy("item")
    last_first = of_user.orderBy(F.desc_nulls_last("timestamp"), F.xxhash64("user", "item"), "item")
    every = max(1, len({row[0] for row in rows}) // most)
    last = (F.row_number().over(last_first) == 1) & (F.pmod(F.xxhash64("user"), F.lit(every)) == 0)
    enough = (F.count("*").over(of_user) >= 5) & (F.count("*").over(of_item) >= 2)
    expected = frame.withColumn("kept", last & enough).where("kept").select("user", "item").collect()
    assert kept == sorted(map(tuple, expected))
    assert kept
    assert sorted([*train, *kept]) == sorted(row[:2] for row in rows)
