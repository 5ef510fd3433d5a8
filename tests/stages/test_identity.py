"""What a run is known by: each file and table that it reads, changed alone, makes it another run."""

from types import SimpleNamespace
from typing import get_args

import pytest
from pydantic import BaseModel

from sparkrec.config import (
    EvaluateSettings,
    IngestSettings,
    ModelSettings,
    PrepareSettings,
    RecommendSettings,
    SourceSettings,
    TrainSettings,
    TuneSettings,
    declaration,
    installed_kinds,
)
from sparkrec.config.base import StageSettings
from sparkrec.configfile import set_key, validate
from sparkrec.spark.platform.lake import Lake
from sparkrec.stages import evaluate, ingest, prepare, recommend, train, tune

pytestmark = pytest.mark.spark

STAGES = {
    "prepare": (PrepareSettings, prepare, {"dataset": "plays", "interactions": "plays"}),
    "train": (TrainSettings, train, {"dataset": "plays"}),
    "tune": (TuneSettings, tune, {"dataset": "plays", "space": {"regularization": [1.0]}}),
    "evaluate": (EvaluateSettings, evaluate, {"model": "plays-popularity"}),
    "recommend": (RecommendSettings, recommend, {"model": "plays-popularity"}),
}
_FIELDS = {"id": "id", "fields": [{"kind": "categorical", "column": "name"}]}
_ATTRIBUTES = {"id": "id", "columns": ["name"]}
FILES = {
    "prepare.features.users": _FIELDS,
    "prepare.features.items": _FIELDS,
    "train.model.users": _ATTRIBUTES,
    "train.model.items": _ATTRIBUTES,
    "tune.model.users": _ATTRIBUTES,
    "tune.model.items": _ATTRIBUTES,
    "evaluate.titles": {"id": "id", "title": "name"},
    "recommend.users": {"column": "id"},
    "recommend.candidates": {"column": "id"},
    "recommend.deny": {"column": "id"},
}
"""Setting of a source to what stands beside it."""
TABLES = {
    "prepare.interactions": {"interactions": "more"},
    "prepare.split.test": {"split": {"kind": "given", "test": "more", "validation": 0.1}},
    "prepare.split.validation_table": {
        "split": {"kind": "given", "test": "held", "validation": 0.0, "validation_table": "more"}
    },
}


def ingested(lake, folder, table, rows, batch):
    path = folder / f"{table}-{batch}.csv"
    path.write_text("user,item,time\n" + "".join(f"u{u},i{i},{1_600_000_000 + t}\n" for u, i, t in rows))
    columns = {"user": "user", "item": "item", "timestamp": "time"}
    source = {"path": str(path), "format": "csv"}
    raw = {"lake": lake.root, "table": table, "source": source, "columns": columns, "batch": batch}
    ingest.ingest(validate(IngestSettings, raw | {"timestamp_format": "seconds"}, "test"), lake)


@pytest.fixture(scope="module")
def shop(spark, tmp_path_factory):
    """A lake of a dataset and a model, and tables beside them."""
    folder = tmp_path_factory.mktemp("identity")
    lake = Lake(spark, str(folder / "lake"))
    for table in ("plays", "held", "more"):
        ingested(lake, folder, table, [(u, i, 9 * u + i) for u in range(4) for i in range(5)], "first")
    run = prepare.prepare(validate(PrepareSettings, {"lake": lake.root, **STAGES["prepare"][2]}, "test"), lake)
    popularity = {
        "lake": lake.root,
        "dataset": run.reference,
        "name": "plays-popularity",
        "model": {"kind": "popularity"},
    }
    train.train(validate(TrainSettings, popularity, "test"), lake)
    return SimpleNamespace(lake=lake, folder=folder)


def inputs_of(lake, setting, value):
    name, _, key = setting.partition(".")
    settings, stage, base = STAGES[name]
    raw = {"lake": lake.root, **base}
    if name == "train":
        raw["model"] = {"kind": "popularity"}
    if key.startswith("model."):
        raw["model"] = {"kind": "linear"}
    set_key(raw, key, value)
    return stage.inputs(validate(settings, raw, setting), lake)


@pytest.mark.parametrize("setting", FILES)
def test_another_value_in_a_file_is_another_run(shop, setting):
    path = shop.folder / "rows.csv"
    source = {"source": {"path": str(path), "format": "csv"}}

    def pinned(*rows):
        path.write_text("id,name\n" + "".join(f"{row}\n" for row in rows))
        return inputs_of(shop.lake, setting, source | FILES[setting])

    first = pinned("u0,ab", "u1,cd")
    assert pinned("u1,cd", "u0,ab") == first
    assert pinned("u0,ab", "u2,cd") != first
    if FILES[setting] != {"column": "id"} or setting == "recommend.users":  # whose further columns are contexts
        assert pinned("u0,ab", "u1,ce") != first
        assert pinned("u0,ab", "u1,") != pinned("u0,", "u1,ab")


@pytest.mark.parametrize("setting", TABLES)
def test_another_batch_in_a_table_is_another_run(shop, setting):
    ((key, value),) = TABLES[setting].items()

    def pinned():
        return inputs_of(shop.lake, f"prepare.{key}", value)

    first = pinned()
    assert pinned() == first
    ingested(shop.lake, shop.folder, "more", [(0, 7, 99)], setting)
    assert pinned() != first


def test_another_model_to_begin_with_is_another_run(shop):
    def pinned():
        return inputs_of(shop.lake, "train.warm_start", "beginning")

    raw = {"lake": shop.lake.root, "dataset": "plays", "name": "beginning", "model": {"kind": "popularity"}}
    first = train.train(validate(TrainSettings, raw, "test"), shop.lake)
    found = pinned()
    assert found["warm_start"] == first.reference
    assert pinned() == found
    train.train(validate(TrainSettings, {**raw, "seed": 1}, "test"), shop.lake)
    assert pinned() != found


def sources(settings, path):
    """Dotted keys under which a class of settings, or one within it, has a source."""
    for name, field in settings.model_fields.items():
        for kind in kinds(field.annotation):
            if kind is SourceSettings:
                yield path
            elif kind is ModelSettings:
                for model in installed_kinds():
                    yield from sources(declaration(model).settings, f"{path}.{name}")
            elif isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from sources(kind, f"{path}.{name}")


def kinds(annotation):
    return [annotation, *(kind for each in get_args(annotation) for kind in kinds(each))]


def test_every_setting_of_a_source_is_tried():
    found = {each for name, (settings, *_) in STAGES.items() for each in sources(settings, name)}
    assert found == set(FILES)
    others = {stage.__name__ for stage in StageSettings.__subclasses__()}
    assert others - {settings.__name__ for settings, *_ in STAGES.values()} == {
        "IngestSettings",
        "PipelineSettings",
        "RetrainSettings",
    }


def test_what_starts_the_processes_is_told_and_makes_no_other_run(prepared_lake, monkeypatch):
    pytest.importorskip("torch")
    settings = {"lake": prepared_lake.root, "dataset": "small", "model": {"kind": "mf", "training": {"processes": 2}}}
    plans = {}
    for installed in (True, False):
        monkeypatch.setattr("sparkrec.config.training.find_spec", lambda name, there=installed: there or None)
        plans[installed] = train.plan(validate(TrainSettings, settings, "test"), prepared_lake).report()
    assert [plan["chosen"]["training.launcher"] for plan in plans.values()] == ["horovod", "torch"]
    assert plans[True]["run"] == plans[False]["run"]
