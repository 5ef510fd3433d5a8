"""Trials are what the space says, and the best is the best."""

import json
import threading

import pytest
import yaml

from sparkrec.config import Range, TuneSettings
from sparkrec.errors import ConfigError
from sparkrec.spark.algorithms.als.settings import AlsSettings
from sparkrec.spark.algorithms.bias import BiasSettings
from sparkrec.spark.algorithms.itemknn import ItemKnnSettings
from sparkrec.stages.tune import trials, tune


def settings(**more):
    return TuneSettings(**{"lake": "x", "dataset": "plays", "model": AlsSettings(), "space": {}, **more})


def test_a_grid_is_every_combination():
    found = trials(settings(space={"rank": [4, 8], "regularization": [0.1, 0.2, 0.3]}))
    assert [(each["rank"], each["regularization"]) for each in found] == [
        (4, 0.1), (4, 0.2), (4, 0.3), (8, 0.1), (8, 0.2), (8, 0.3),
    ]  # fmt: skip


def test_random_draws_stay_in_their_range_and_repeat_for_a_seed():
    space = {"rank": Range(low=4, high=64, integer=True), "regularization": Range(low=1e-3, high=1.0, log=True)}
    found = trials(settings(space=space, search="random", trials=30))
    assert found == trials(settings(space=space, search="random", trials=30))
    assert found != trials(settings(space=space, search="random", trials=30, seed=1))
    assert all(4 <= each["rank"] <= 64 and 1e-3 <= each["regularization"] <= 1 for each in found[1:])


def test_a_random_search_is_never_worse_than_what_was_given():
    space = {"regularization": Range(low=1e-3, high=1.0, log=True)}
    given, *drawn = trials(settings(model=AlsSettings(regularization=2.0), space=space, search="random", trials=4))
    assert given == AlsSettings(regularization=2.0).model_dump(mode="json")
    assert len({each["regularization"] for each in drawn}) == 3


def test_a_space_that_does_not_fit_the_model_is_refused_by_key():
    with pytest.raises(ConfigError, match=r"model.rnk: unknown key"):
        trials(settings(space={"rnk": [4]}))
    with pytest.raises(ConfigError, match=r"model.rank: Input should be greater than or equal to 1"):
        trials(settings(space={"rank": [0]}))


def test_trials_rank_what_the_search_says(monkeypatch, tmp_path):
    from types import SimpleNamespace

    from sparkrec.stages import tune as stage

    measured = []
    monkeypatch.setattr(stage, "fit", lambda *_, **__: SimpleNamespace(facts={}))
    monkeypatch.setattr(stage, "measure", lambda *_, **how: measured.append(how["exclude_seen"]) or 0.5)
    part = SimpleNamespace(train=None, validation=None)
    for given in ({}, {"exclude_seen": False}):
        stage._measure(settings(**given), {"kind": "als"}, part, str(tmp_path / "scratch"))
    assert measured == [True, False]


@pytest.mark.spark
def test_the_best_trial_is_written_as_a_config_that_train_takes(prepared_lake, tmp_path):
    best = tmp_path / "conf" / "best.yaml"
    run = tune(
        TuneSettings(
            lake=prepared_lake.root,
            dataset="small",
            model=ItemKnnSettings(),
            space={"neighbors": [1, 30]},
            best=str(best),
        ),
        prepared_lake,
    )
    rows = prepared_lake.table("trials").where(f"run = '{run.id}'").orderBy("trial").collect()
    assert [json.loads(row.settings)["neighbors"] for row in rows] == [1, 30]
    winner = max(rows, key=lambda row: row.value)
    assert run.manifest["best"]["value"] == pytest.approx(winner.value)
    config = yaml.safe_load(best.read_text())
    assert config["model"] == json.loads(winner.settings)
    from sparkrec.config import TrainSettings
    from sparkrec.configfile import load

    assert load(TrainSettings, best).model.kind == "itemknn"


@pytest.mark.spark
def test_folds_measure_every_row_once(prepared_lake):
    from sparkrec.spark.data.dataset import Dataset
    from sparkrec.stages.tune import parts

    dataset = Dataset.open(prepared_lake, "small")
    whole = dataset.observed(include_validation=True)
    folds = parts(settings(folds=3), dataset, lambda frame: frame)
    held_out = [fold.validation for fold in folds]
    union = held_out[0].unionByName(held_out[1]).unionByName(held_out[2])
    assert union.exceptAll(whole).isEmpty()
    assert union.count() == whole.count()
    for fold in folds:
        assert fold.train.count() + fold.validation.count() == whole.count()


@pytest.mark.spark
def test_trials_side_by_side_are_those_one_by_one(prepared_lake, monkeypatch):
    """In order, with equal values; the session's settings are what they were."""
    from sparkrec.spark.data.dataset import Dataset
    from sparkrec.stages import tune as stage

    model = AlsSettings(rank=4, iterations=2)
    given = settings(model=model, space={"rank": [2, 3, 4]})
    candidates, spark = stage.trials(given), prepared_lake.spark
    parts = stage.parts(
        given.model_copy(update={"folds": 2}), Dataset.open(prepared_lake, "small"), lambda frame: frame
    )
    found, seen = {}, {}
    measure = stage._measure

    def watched(*args):
        seen[threading.current_thread().name.partition("_")[0]] = True
        return measure(*args)

    monkeypatch.setattr(stage, "_measure", watched)
    before = {row.key: row.value for row in spark.sql("SET").collect()}
    for cores in (1, 3):
        monkeypatch.setattr(stage, "cores_for", lambda _, cores=cores: cores)
        measured = stage._measured(given, candidates, parts, f"{prepared_lake.root}/scratch")
        found[cores] = [[each.value for each in trial] for trial in measured]
    assert found[1] == found[3]
    assert len({str(values) for values in found[1]}) == 3
    assert {*seen} == {"MainThread", "trial"}
    assert {row.key: row.value for row in spark.sql("SET").collect()} == before


@pytest.mark.spark
def test_a_search_that_needs_ratings_says_so(prepared_lake):
    from sparkrec.errors import TrainError

    with pytest.raises(TrainError, match="rating"):
        tune(
            TuneSettings(
                lake=prepared_lake.root, dataset="small", model=BiasSettings(), space={}, folds=2, metric="rmse"
            ),
            prepared_lake,
        )
