"""Users to whom a model was not fitted are answered from what they did."""

import numpy as np
import pytest
from pyspark.sql import functions as F

from sparkrec.fitting.registry import fit
from sparkrec.spark.algorithms.als.settings import AlsSettings
from sparkrec.spark.algorithms.bias import BiasSettings
from sparkrec.spark.algorithms.ease import EaseSettings
from sparkrec.spark.algorithms.itemknn import ItemKnnSettings
from sparkrec.spark.algorithms.popularity import PopularitySettings
from sparkrec.spark.algorithms.userknn import UserKnnSettings
from sparkrec.spark.model.serving import bind
from sparkrec.spark.retrieval.topk import score_pairs

pytestmark = pytest.mark.spark

N_USERS, N_ITEMS, STRANGER = 14, 9, 1000
EVENTS = "user long, item long, value float, confidence float, timestamp timestamp"


@pytest.fixture(scope="module")
def rated(dataset_of):
    """Random ratings; item 8 has none, and neither has user 13."""
    rng = np.random.default_rng(3)
    mask = rng.random((N_USERS, N_ITEMS)) < 0.6
    mask[13], mask[:, 8] = False, False
    return dataset_of(
        [(u, i, rng.integers(1, 6)) for u, i in np.argwhere(mask)], N_USERS, N_ITEMS, explicit=True, id_type="long"
    )


def scores(model, users):
    pairs = model.items.select("item").crossJoin(users.select("user"))
    found = {(row.user, row.item): row.score for row in score_pairs(model, pairs).collect()}
    return {user: [found[user, item] for item in range(N_ITEMS)] for user in sorted({user for user, _ in found})}


@pytest.mark.parametrize(
    "settings",
    [
        EaseSettings(regularization=2.0),
        ItemKnnSettings(neighbors=4, normalization=0.5),
        UserKnnSettings(neighbors=4, shrinkage=1.0, normalization=0.5, weighting="bm25"),
        UserKnnSettings(neighbors=4, weighting="tfidf"),
    ],
    ids=lambda each: f"{each.kind}-{getattr(each, 'weighting', '')}",
)
def test_a_row_made_of_a_history_is_the_fitted_row_of_who_has_that_history(rated, settings, tmp_path):
    model = fit(settings, rated, seed=0, scratch=str(tmp_path))
    users = rated.users.where("train_count > 0").select("user")
    own = scores(model, users)
    anew = bind(model, rated, users, rated.train, anew=users)
    assert {row.by for row in anew.users.collect()} == {"history"}
    made = scores(anew.model, users)
    for user in own:
        assert made[user] == pytest.approx(own[user], rel=1e-5, abs=1e-6)


def test_a_stranger_is_answered_as_who_did_the_same_and_nobody_else_is_touched(spark, rated, tmp_path):
    model = fit(EaseSettings(regularization=2.0), rated, seed=0, scratch=str(tmp_path))
    told = rated.train.where("user = 2").withColumn("user", F.lit(STRANGER).cast("long"))
    users = spark.createDataFrame([(2,), (5,), (13,), (STRANGER,), (7777,)], "user long")
    served = bind(model, rated, users, rated.train.unionByName(told))
    assert dict(served.users.collect()) == {2: "model", 5: "model", STRANGER: "history"}
    found = scores(served.model, served.users)
    assert found[STRANGER] == pytest.approx(found[2])
    assert found[5] == pytest.approx(scores(model, users)[5])


def test_a_history_of_items_without_a_train_row_says_nothing(spark, rated, tmp_path):
    model = fit(ItemKnnSettings(), rated, seed=0, scratch=str(tmp_path))
    events = spark.createDataFrame([(13, 8, 1.0, 1.0, None)], EVENTS)
    assert bind(model, rated, events.select("user"), events).users.isEmpty()


def test_a_model_with_trained_rows_alone_leaves_strangers_unanswered(spark, rated, tmp_path):
    model = fit(PopularitySettings(), rated, seed=0, scratch=str(tmp_path))
    events = spark.createDataFrame([(13, 1, 1.0, 1.0, None), (2, 1, 1.0, 1.0, None)], EVENTS)
    assert dict(bind(model, rated, events.select("user"), events).users.collect()) == {2: "model"}


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_a_folded_row_solves_the_users_system_with_the_items_as_they_are(spark, rated, eta, tmp_path):
    settings = AlsSettings(
        rank=3, iterations=4, regularization=0.1, unobserved_weight=0.2, propensity_exponent=eta, init_scale=1.0
    )
    model = fit(settings, rated, seed=0, scratch=str(tmp_path))
    rows = [(STRANGER, 1, 4.0, 2.0, None), (STRANGER, 5, 2.0, 1.0, None), (STRANGER, 8, 5.0, 1.0, None)]
    served = bind(model, rated, spark.createDataFrame([(STRANGER,)], "user long"), spark.createDataFrame(rows, EVENTS))
    assert dict(served.users.collect()) == {STRANGER: "folded in"}
    x = served.model.users.where(F.col("user") == STRANGER).collect()[0].value
    counts = np.array([row.train_count for row in rated.items.orderBy("item").collect()], float)
    y = {row.item: np.array(row.value) for row in model.items.collect() if counts[row.item]}
    n = counts[counts > 0]
    weight = counts[[1, 5]] ** -eta / ((n * n**-eta).sum() / n.sum())
    c, p, rated_items = np.array([2.0, 1.0]) * weight, np.array([4.0, 2.0]), np.stack([y[1], y[5]])
    every = np.stack(list(y.values()))
    reg = 0.1 * (2 + 0.2 * len(y))
    system = 0.2 * every.T @ every + (rated_items.T * (c - 0.2)) @ rated_items + reg * np.eye(3)
    assert x == pytest.approx(np.linalg.solve(system, rated_items.T @ (c * p)), rel=1e-3)


def test_the_bias_of_a_stranger_is_the_shrunk_mean_of_what_is_left(spark, rated, tmp_path):
    model = fit(BiasSettings(user_regularization=2.0), rated, seed=0, scratch=str(tmp_path))
    rows = [(STRANGER, 1, 5.0, 1.0, None), (STRANGER, 5, 4.0, 1.0, None)]
    served = bind(model, rated, spark.createDataFrame([(STRANGER,)], "user long"), spark.createDataFrame(rows, EVENTS))
    level = {row.item: row.value[0] for row in model.items.collect()}
    expected = (5 - level[1] + 4 - level[5]) / (2 + 2.0)
    row = served.model.users.where(F.col("user") == STRANGER).collect()[0]
    assert row.value == pytest.approx([1.0, expected], rel=1e-5)


def test_workers_do_not_take_a_model_for_the_one_that_was_in_its_folder_before(tmp_path):
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sparkrec.spark.model.histories import _item_rows

    def write(value):
        pq.write_table(pa.table({"item": [0], "value": [[value]]}), tmp_path / "part-0.parquet")

    write(1.0)
    assert np.array_equal(_item_rows("first", str(tmp_path)), [[1.0]])
    write(2.0)
    assert np.array_equal(_item_rows("first", str(tmp_path)), [[1.0]])
    assert np.array_equal(_item_rows("second", str(tmp_path)), [[2.0]])
