"""How far distributions have moved, told by whole numbers that come back from wherever the rows are."""

import numpy as np
import pyarrow as pa
import pytest

from sparkrec.spark.in_place import LocalRows
from sparkrec.spark.runner import SparkRows
from sparkrec.stages.retraining.distributions import (
    Later,
    Rounded,
    divergence,
    histogram,
    jensen_shannon,
    moved,
    overlap,
    quantiles,
)
from sparkrec.stages.retraining.serve import _faults


def counts(values):
    """What a call of the task makes of values that come in two batches, each once."""
    rows = pa.table({"value": values, "n": [1] * len(values)})
    (found,) = Rounded()(rows.to_batches(max_chunksize=max(len(rows) // 2, 1)))
    return dict(zip(*(found.column(name).to_pylist() for name in ("value", "n")), strict=True))


def test_values_are_rounded_to_a_thousandth_and_small_whole_ones_are_not():
    found = counts(pa.array([4.5, -3.0, 0.0, 4.5, 1023.0, float("nan"), float("inf")], pa.float32()))
    assert found == {-3.0: 1, 0.0: 1, 4.5: 2, 1023.0: 1}
    values = np.random.default_rng(0).lognormal(0, 5, 1000)
    found = np.array([*counts(values)])
    nearest = found[np.abs(found - values[:, None]).argmin(axis=1)]
    assert np.allclose(nearest, values, rtol=1 / 1024, atol=0)
    assert set(nearest) == set(found)
    assert [*counts(1 + values[:10] * 1e-9).values()] == [10]


def test_of_later_events_alone():
    at = pa.array([0, 1_000_000, 1_000_001, None], pa.timestamp("us", "UTC"))
    (rows,) = pa.table({"value": [1.0, 2.0, 3.0, 4.0], "timestamp": at}).to_batches()
    for after, wanted in ((1_000_000, [3.0]), (None, [1.0, 2.0, 3.0, 4.0])):
        (later,) = Later("value", pa.float64(), after)([rows])
        assert later.column("value").to_pylist() == wanted


def test_shares_that_are_the_same_have_not_moved_and_others_have_all_the_way():
    assert jensen_shannon(np.array([1, 2]), np.array([10, 20])) == pytest.approx(0)
    assert jensen_shannon(np.array([1, 0]), np.array([0, 5])) == pytest.approx(1)
    assert jensen_shannon(np.array([0, 0]), np.array([0, 5])) is None
    # One half against one quarter: (1/2 log2(4/3) + 1/2 log2(4/5)) / 2 + (1/4 log2(2/3) + 3/4 log2(6/5)) / 2.
    terms = 0.5 * np.log2(4 / 3) + 0.5 * np.log2(4 / 5), 0.25 * np.log2(2 / 3) + 0.75 * np.log2(6 / 5)
    assert jensen_shannon(np.array([1, 1]), np.array([1, 3])) == pytest.approx(sum(terms) / 2)
    assert jensen_shannon(np.array([1, 1, 2]), np.array([3, 0, 1])) == pytest.approx(
        jensen_shannon(np.array([1, 2, 1]), np.array([0, 1, 3]), np.array([1, 1, 1]))
    )


def test_values_are_compared_one_by_one_where_they_are_few_and_by_deciles_where_they_are_many():
    few = np.arange(5.0), np.full(5, 10)
    assert moved(few, few) == pytest.approx(0)
    assert moved(few, (np.array([1.5, 2.5]), np.array([3, 3]))) == pytest.approx(1)  # none of these was there
    many = np.arange(500.0), np.full(500, 10)
    assert moved(many, (many[0] + 0.25, many[1])) < 0.05
    assert moved(many, (many[0] + 1000, many[1])) > 0.7
    assert moved(few, (np.zeros(0), np.zeros(0, np.int64))) is None
    assert quantiles(*many, [0.1, 0.5]).tolist() == [49.0, 249.0]
    assert quantiles(np.zeros(0), np.zeros(0, np.int64), [0.1]).tolist() == []


@pytest.fixture(params=["here", "on Spark"])
def rows(spark, request):
    """Rows of a table, here and on Spark."""
    if request.param == "here":
        return lambda **columns: LocalRows(spark, pa.table(columns))
    return lambda **columns: SparkRows(spark.createDataFrame(pa.table(columns).to_pandas()).repartition(3))


@pytest.mark.spark
def test_counts_of_ids_that_only_one_side_has_count(rows):
    old, new = rows(id=["a", "b", "c"], n=[1, 1, 2]), rows(id=["c", "a", "d"], n=[1, 3, 4])
    wanted = jensen_shannon(np.array([1, 1, 2, 0]), np.array([3, 0, 1, 4]))
    assert divergence(old, new, "id", "n") == pytest.approx(wanted)
    assert divergence(old, rows(id=["a"], n=[0]), "id", "n") is None
    values, times = histogram(rows(score=[2.0, 1.0, 2.0]), "score")
    assert (values.tolist(), times.tolist()) == ([1.0, 2.0], [1, 2])


@pytest.mark.spark
def test_lists_share_items_of_users_who_are_in_both(rows):
    old = rows(user_id=["u", "u", "v", "v", "w"], item_id=[1, 2, 3, 4, 5])
    new = rows(user_id=["u", "u", "u", "v", "x"], item_id=[2, 2, 9, 8, 5])
    assert overlap(old, new, "user_id", "item_id") == pytest.approx((0.5 + 0.0) / 2)
    assert overlap(old, rows(user_id=["z"], item_id=[1]), "user_id", "item_id") == 1.0


@pytest.mark.spark
def test_what_is_wrong_with_lists_is_counted_by_user_and_by_score(rows):
    lists = rows(
        user_id=["full", "full", "full", "short", "twice", "twice", "twice", "hole", "hole"],
        item_id=[1, 2, 3, 1, 4, 4, 5, 1, 2],
        rank=pa.array([2, 1, 3, 1, 1, 2, 3, 1, 3], pa.int32()),
        score=[0.2, 0.3, 0.1, float("nan"), 0.3, 0.2, float("inf"), 0.2, 0.1],
    )
    assert _faults(lists, 3) == {"users": 4, "full": 2, "doubled": 1, "with_holes": 1, "unscored": 2}
