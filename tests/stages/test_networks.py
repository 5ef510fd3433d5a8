"""Networks through the stages: trained from a dataset, measured and recommending by config alone."""

import pyspark
import pytest
from pyspark.sql import functions as F

pytest.importorskip("torch")

from sparkrec import tables
from sparkrec.config import PipelineSettings, RecommendSettings, TrainSettings
from sparkrec.configfile import validate
from sparkrec.errors import ConfigError
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.platform.lake import Lake
from sparkrec.stages.pipeline import run
from sparkrec.stages.recommend import recommend

pytestmark = [pytest.mark.spark, pytest.mark.torch, pytest.mark.sparks]

TRAINING = {"epochs": 15, "batch": 256, "learning_rate": 0.01, "init_scale": 0.1, "threads": 1}
TRAINING |= {"negatives": 4, "user_l2": 0.0, "item_l2": 0.0}


@pytest.fixture(scope="module")
def trained(spark, tmp_path_factory, pipeline_settings):
    """A lake in which mf (inner products) and neumf (a head) were trained, beside popularity."""
    if pyspark.__version__ >= "4.3":
        pytest.skip("there is no Delta for Spark 4.3 yet")
    lake = Lake(spark, str(tmp_path_factory.mktemp("networks") / "lake"))
    models = [
        {"kind": "popularity"},
        {"kind": "mf", "dim": 8, "training": {**TRAINING, "loss": "bpr"}},
        {"kind": "neumf", "dim": 8, "layers": [16, 8], "training": {**TRAINING, "stopping": {"patience": 20}}},
    ]
    settings = {**pipeline_settings, "lake": lake.root, "train": [{"model": model} for model in models]}
    run(validate(PipelineSettings, settings, "test"), lake)
    return lake


def test_they_know_more_than_popularity(trained):
    rows = trained.table(tables.METRICS.name).where("segment = 'all' AND metric = 'ndcg' AND k = 10").collect()
    found = {row.kind: row.value for row in rows}
    assert found["mf"] > 1.2 * found["popularity"]
    assert found["neumf"] > 1.2 * found["popularity"]


@pytest.mark.parametrize("kind", ["mf", "neumf"])
def test_they_recommend_what_a_user_has_not_seen(trained, kind):
    given = {"lake": trained.root, "model": f"small-{kind}", "k": 5}
    published = recommend(validate(RecommendSettings, given, "test"), trained)
    lists = trained.table(tables.RECOMMENDATIONS.name).where(F.col("run") == published.id).where("NOT fallback")
    assert lists.groupBy("user_id").count().where("count != 5").isEmpty()
    assert lists.count() > 500
    dataset = Dataset.open(trained, "small")
    known = dataset.train.join(dataset.users, "user").join(dataset.items, "item").select("user_id", "item_id")
    assert lists.join(known, ["user_id", "item_id"]).isEmpty()


@pytest.mark.parametrize("kind", ["mf", "neumf"])
def test_a_model_keeps_its_history_and_has_a_row_for_everyone(trained, kind):
    published = trained.finished_run("train", f"small-{kind}")
    model = Model.load(trained, published)
    assert len(model.facts["history"]) == 15
    assert {"loss", "examples_per_second", "waiting_for_data"} <= set(model.facts["history"][0])
    dataset = trained.finished_run("prepare", "small")
    for side, rows in (("users", model.users), ("items", model.items)):
        ids = trained.spark.read.parquet(f"{dataset.path}/{side}").select(side[:-1])
        assert sorted(map(tuple, ids.collect())) == sorted(map(tuple, rows.select(side[:-1]).collect()))
        assert rows.where(F.size("value") != model.size).isEmpty()
    assert (model.scorer is None) == (kind == "mf")


def test_stopping_on_what_is_fitted_is_refused():
    model = {"kind": "mf", "training": {"stopping": {}}}
    with pytest.raises(
        ConfigError, match="training.stopping measures on the validation split, which include_validation"
    ):
        validate(TrainSettings, {"lake": "x", "dataset": "small", "include_validation": True, "model": model}, "test")
