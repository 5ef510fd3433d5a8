"""Policies from logged events in DataFrames: the same as with arrays."""

import numpy as np
import pytest

from sparkrec import evaluate_policy
from sparkrec.errors import EvaluateError, InputError
from sparkrec.kernels.metrics.off_policy import doubly_robust, ips, snips
from tests.kernels.metrics.test_off_policy import logged, value

pytestmark = pytest.mark.spark
COLUMNS = "reward double, propensity double, probability double"


def test_a_policy_from_events(spark):
    context, action, got, weight, other, reward, _ = logged(n=3000)
    probability = other[context, action]
    predicted, expected = reward[context, action] / 2, (other * reward)[context].sum(axis=1)
    rows = np.stack([got, probability / weight, probability, predicted, expected], axis=1).tolist()
    events = spark.createDataFrame(rows, f"{COLUMNS}, predicted double, expected double")
    found = {row.metric: row for row in evaluate_policy(events.repartition(5)).collect()}
    sums = {"ips": ips(weight, got), "snips": snips(weight, got)}
    sums["doubly_robust"] = doubly_robust(weight, got, predicted, expected)
    assert list(found) == list(sums)
    for name, each in sums.items():
        row, n = found[name], len(got)
        assert row.value == pytest.approx(value(each))
        spread = each[0] - value(each) * each[1]
        error = np.sqrt((spread**2).sum() * n / (n - 1)) / each[1].sum()
        assert row.standard_error == pytest.approx(error, rel=1e-3)
        assert (row.low, row.high) == pytest.approx((row.value - 1.96 * error, row.value + 1.96 * error), rel=1e-3)
        assert row.events == n
        assert row.effective_events == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
    cut = {row.metric: row.value for row in evaluate_policy(events, most=1.5).collect()}
    assert cut["ips"] == pytest.approx((np.minimum(weight, 1.5) * got).mean())


def test_policies_are_told_apart(spark):
    rows = [(1.0, 0.5, 0.25, "a"), (0.0, 0.5, 0.5, "a"), (1.0, 0.5, 1.0, "b")]
    table = evaluate_policy(spark.createDataFrame(rows, f"{COLUMNS}, policy string"), by="policy").collect()
    found = {(row.policy, row.metric): row.value for row in table}
    assert found == {("a", "ips"): 0.25, ("a", "snips"): 1 / 3, ("b", "ips"): 2.0, ("b", "snips"): 1.0}


@pytest.mark.parametrize(
    "row", [(1.0, 0.0, 0.5), (1.0, 1.5, 0.5), (1.0, 0.5, -0.1), (float("nan"), 0.5, 0.5), (None, 0.5, 0.5)]
)
def test_events_out_of_range_are_refused(spark, row):
    with pytest.raises(EvaluateError, match="found 1 events with a null, an infinite number, a propensity outside"):
        evaluate_policy(spark.createDataFrame([row, (1.0, 0.5, 0.5)], COLUMNS))


def test_what_is_missing_is_said(spark):
    events = spark.createDataFrame([(1.0, 0.5, 0.5, 0.5)], f"{COLUMNS}, predicted double")
    with pytest.raises(EvaluateError, match="found predicted alone, expected both of predicted and expected"):
        evaluate_policy(events)
    with pytest.raises(InputError, match="propensity"):
        evaluate_policy(events.drop("propensity"))
    with pytest.raises(EvaluateError, match="found no event"):
        evaluate_policy(events.drop("predicted").limit(0))
    with pytest.raises(EvaluateError, match="most: found 0, expected a weight above 0"):
        evaluate_policy(events.drop("predicted"), most=0)
