"""A model of a later dataset begins with what one of an earlier dataset had learned."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch")

from sparkrec.config import IngestSettings, PrepareSettings, TrainSettings, TuneSettings
from sparkrec.configfile import validate
from sparkrec.errors import ConfigError
from sparkrec.frames import fit
from sparkrec.spark.data import features
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.platform.lake import Lake
from sparkrec.stages.ingest import ingest
from sparkrec.stages.prepare import prepare
from sparkrec.stages.train import train
from sparkrec.stages.warm_start import NoWarmStart

pytestmark = [pytest.mark.spark, pytest.mark.torch]

GROUPS = 4
ALS = {"kind": "als", "rank": 6, "iterations": 40, "tolerance": 1e-4}
FM = {"kind": "fm", "dim": 4, "training": {"epochs": 1, "learning_rate": 1e-9, "optimizer": "sgd", "threads": 1}}


def slice_of(lake, folder, number, users, items, cities):
    """Ingest what some users did with some items, and prepare all that has come. Each item is of a city."""
    rng = np.random.default_rng(number)
    user = np.repeat(users, 9)
    item = rng.choice(np.arange(items) // GROUPS * GROUPS, len(user)) + user % GROUPS
    rows = {"user": [f"u{each}" for each in user], "item": item, "at": 1_600_000_000 + np.arange(len(user))}
    pq.write_table(pa.table(rows), folder / f"events-{number}.parquet")
    named = {"item": np.arange(items), "city": [cities[each % len(cities)] for each in range(items)]}
    pq.write_table(pa.table(named), folder / f"items-{number}.parquet")

    def source(name):
        return {"path": f"{folder}/{name}-{number}.parquet", "format": "parquet"}

    columns = {"user": "user", "item": "item", "timestamp": "at"}
    raw = {"source": source("events"), "columns": columns, "timestamp_format": "seconds", "batch": f"b{number}"}
    ingest(validate(IngestSettings, {"lake": lake.root, **raw}, "test"), lake)
    city = {"source": source("items"), "id": "item", "fields": [{"kind": "categorical", "column": "city"}]}
    raw = {"dataset": "shop", "split": {"kind": "fold", "folds": 9}, "features": {"items": city}}
    return prepare(validate(PrepareSettings, {"lake": lake.root, **raw}, "test"), lake).reference


@pytest.fixture(scope="module")
def grown(spark, tmp_path_factory):
    """A lake and the references of two datasets: the second has new users, items and a new first category."""
    folder = tmp_path_factory.mktemp("grown")
    lake = Lake(spark, f"{folder}/lake")
    first = slice_of(lake, folder, 1, np.arange(60), 40, ["bonn", "rome"])
    return lake, first, slice_of(lake, folder, 2, np.arange(50, 80), 48, ["bonn", "rome", "aachen"])


def trained(lake, dataset, model, **more):
    raw = {"lake": lake.root, "dataset": dataset, "model": model, **more}
    return train(validate(TrainSettings, raw, "test"), lake)


@pytest.fixture(scope="module")
def first_als(grown):
    lake, first, _ = grown
    return trained(lake, first, ALS, name="first")


def test_a_model_is_another_run_by_what_it_began_with(grown, first_als):
    lake, _, second = grown
    cold = trained(lake, second, ALS, name="als")
    warm = trained(lake, second, ALS, name="als", warm_start="first")
    assert warm.inputs["warm_start"] == first_als.reference
    assert warm.id != cold.id
    pinned = trained(lake, second, ALS, name="als", warm_start=first_als.reference)
    assert pinned.inputs == warm.inputs
    iterations = [len(each.manifest["facts"]["history"]) for each in (warm, cold)]
    assert iterations[0] < iterations[1]


def test_categories_that_have_moved_are_known_by_their_names(grown):
    lake, first, second = grown
    before = trained(lake, first, FM, name="fm")
    after = trained(lake, second, FM, name="fm", warm_start=before.reference)

    def rows(run):
        codes = features.load(Dataset.open(lake, run.inputs["dataset"]).folder)
        (city,) = codes.fields
        of_rows = Model.load(lake, run).scorer.weights["features"]
        return dict(zip(["null", "unknown", *city.categories.to_pylist()], of_rows, strict=True))

    old, new = rows(before), rows(after)
    assert list(new)[2] == "aachen"
    for name, row in old.items():
        np.testing.assert_allclose(new[name], row, atol=1e-6)
    assert all(np.abs(new["aachen"] - row).max() > 1e-3 for row in old.values())


def test_what_does_not_fit_is_told(grown, first_als):
    lake, _, second = grown
    began = first_als.reference
    with pytest.raises(NoWarmStart, match=rf"warm_start: {began}: found an als of rank 6, expected 7"):
        trained(lake, second, {**ALS, "rank": 7}, warm_start=began)
    with pytest.raises(NoWarmStart, match=r"found a als, expected a fm"):
        trained(lake, second, FM, warm_start=began)
    with pytest.raises(NoWarmStart, match=r"popularity is fitted at once and begins with nothing; als and networks do"):
        trained(lake, second, {"kind": "popularity"}, warm_start=began)
    with pytest.raises(NoWarmStart, match=r"warm_start: first@0{12}: there is no finished train run"):
        trained(lake, second, ALS, warm_start="first@000000000000")
    with pytest.raises(ConfigError, match="warm_start"):
        validate(TuneSettings, {"lake": "x", "dataset": "x", "model": ALS, "space": {}, "warm_start": began}, "tune")
    with pytest.raises(ConfigError, match="warm_start"):
        fit(lake.spark.createDataFrame([(1, 2)], "user long, item long"), kind="als", warm_start=began)
