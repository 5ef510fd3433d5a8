"""The figures of Spark's own evaluators."""

import numpy as np
import pytest
from pyspark.ml.evaluation import RankingEvaluator, RegressionEvaluator
from pyspark.mllib.evaluation import RankingMetrics
from pyspark.sql import functions as F

from sparkrec import evaluate

pytestmark = [pytest.mark.spark, pytest.mark.sparks]


def frames(spark, users=80, items=40, seed=0):
    rng = np.random.default_rng(seed)
    rows = [
        (u, [float(i) for i in rng.permutation(items)[: rng.integers(1, 15)]],
         [float(i) for i in rng.choice(items, rng.integers(1, 12), replace=False)])
        for u in range(users)
    ]  # fmt: skip
    both = spark.createDataFrame(rows, "user long, prediction array<double>, label array<double>")
    lists = both.select("user", F.col("prediction").cast("array<long>").alias("item"))
    return both, lists, both.select("user", F.explode(F.col("label").cast("array<long>")).alias("item"))


def test_ranking_evaluator(spark):
    both, lists, truth = frames(spark)
    names = {"ndcgAtK": "ndcg", "recallAtK": "recall", "precisionAtK": "precision", "meanAveragePrecisionAtK": "map"}
    found = {
        (row.metric, row.k): row.value for row in evaluate(lists, truth, list(names.values()), k=[3, 10]).collect()
    }
    for theirs, name in names.items():
        for k in (3, 10):
            value = RankingEvaluator(metricName=theirs, k=k).evaluate(both)
            assert found[name, k] == pytest.approx(value, rel=1e-9), theirs
    whole = RankingEvaluator(metricName="meanAveragePrecision").evaluate(both)
    full = evaluate(lists, truth, ["map_full"], k=[40]).collect()[0].value
    assert full == pytest.approx(whole, rel=1e-9)  # without a cutoff theirs is over all that is relevant


def test_users_without_relevant_items_count_as_zero_there_and_not_at_all_here(spark):
    pairs = spark.sparkContext.parallelize([([1.0], [1.0]), ([1.0], [])])
    assert RankingMetrics(pairs).precisionAt(1) == 0.5
    lists = spark.createDataFrame([(1, [1]), (2, [1])], "user long, item array<long>")
    truth = spark.createDataFrame([(1, 1)], "user long, item long")
    row = evaluate(lists, truth, ["precision"], k=[1]).collect()[0]
    assert (row.value, row.users) == (1.0, 1)


def test_regression_evaluator(spark):
    rng = np.random.default_rng(0)
    rows = [(u, i, float(rng.normal()), float(rng.integers(1, 6))) for u in range(20) for i in range(10)]
    table = spark.createDataFrame(rows, "user long, item long, score double, relevance double")
    found = {
        row.metric: row.value
        for row in evaluate(table.drop("relevance"), table.drop("score"), ["rmse", "mae"]).collect()
    }
    for name in ("rmse", "mae"):
        theirs = RegressionEvaluator(predictionCol="score", labelCol="relevance", metricName=name).evaluate(table)
        assert found[name] == pytest.approx(theirs, rel=1e-9)
