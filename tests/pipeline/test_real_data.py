"""Public data through the configs that docs/results.md names: its cheap rows come out again."""

from pathlib import Path

import pytest

from sparkrec.config import IngestSettings, PipelineSettings, PrepareSettings, TuneSettings
from sparkrec.configfile import read_yaml, validate
from sparkrec.stages.ingest import ingest
from sparkrec.stages.pipeline import run
from sparkrec.stages.prepare import prepare
from sparkrec.stages.tune import tune

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.data]

ROOT = Path(__file__).parents[2]
FOR_MANY_ROWS = {
    "spark.sql.codegen.wholeStage": "true",
    "spark.sql.codegen.factoryMode": "FALLBACK",
    "spark.sql.adaptive.enabled": "true",
}


@pytest.fixture(autouse=True)
def planned_for_many_rows(spark):
    """With the code that Spark generates, which pays for a million rows."""
    before = {name: spark.conf.get(name) for name in FOR_MANY_ROWS}
    for name, value in FOR_MANY_ROWS.items():
        spark.conf.set(name, value)
    yield
    for name, value in before.items():
        spark.conf.set(name, value)


def test_popularity_and_itemknn_on_movielens_1m(real_data, lake, monkeypatch):
    monkeypatch.chdir(ROOT)  # the pipeline names the configs of its stages from there
    raw = read_yaml("conf/pipeline/ml-1m-ncf.yaml")
    cheap = {"popularity", "itemknn"}
    train = [each for each in raw["train"] if isinstance(each, dict) and each["model"]["kind"] in cheap]
    result = run(validate(PipelineSettings, {**raw, "train": train, "lake": lake.root}, "test"), lake)
    popularity, itemknn = (each.manifest["metrics"] for each in result.evaluations)
    assert popularity["hit_rate@10"] == pytest.approx(0.453, abs=0.002)  # as published
    assert popularity["ndcg@10"] == pytest.approx(0.254, abs=0.002)
    assert itemknn["hit_rate@10"] > 0.66
    assert itemknn["ndcg@10"] > 0.39


def test_biases_on_movielens_100k(real_data, lake):
    for stage, settings_class, name in (
        (ingest, IngestSettings, "ingest/ml-100k"),
        (prepare, PrepareSettings, "prepare/ml-100k"),
        (tune, TuneSettings, "tune/ml-100k-bias-5fold"),
    ):
        raw = {**read_yaml(ROOT / f"conf/{name}.yaml"), "lake": lake.root}
        report = stage(validate(settings_class, raw, name), lake).report()
    assert report["best"]["value"] < 0.942
