"""A driver killed with SIGKILL leaves nothing half-written that can be read, and running again completes."""

import numpy as np
import pytest

from sparkrec.config import IngestSettings, PrepareSettings, TrainSettings
from sparkrec.configfile import validate
from sparkrec.errors import InputError
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.platform.lake import Lake
from sparkrec.stages.ingest import ingest
from sparkrec.stages.prepare import prepare
from sparkrec.stages.train import train
from tests.pipeline.processes import any_path, command, interrupt_when, kill_after, kill_when, terminate_when

pytestmark = [pytest.mark.spark, pytest.mark.slow]


def stage(settings_class, pipeline_settings, lake, part, **more):
    raw = {"lake": lake.root, "spark": pipeline_settings["spark"], **part, **more}
    return raw, validate(settings_class, raw, "test")


def rows(frame):
    return sorted(map(tuple, frame.collect()), key=str)


@pytest.fixture
def twin(spark, tmp_path):
    """A second lake, in which nothing is ever killed."""
    return Lake(spark, str(tmp_path / "twin"))


def test_a_killed_ingest_is_completed_by_running_it_again(lake, twin, pipeline_settings, config_file):
    raw, settings = stage(IngestSettings, pipeline_settings, lake, pipeline_settings["ingest"][0])
    kill_when(command("ingest", "--config", config_file(raw)), any_path(lake.root, "interactions/*.parquet"))
    ingest(settings, lake)
    _, undisturbed = stage(IngestSettings, pipeline_settings, twin, pipeline_settings["ingest"][0])
    ingest(undisturbed, twin)
    for name in ("interactions", "interactions_rejected"):
        assert rows(lake.table(name)) == rows(twin.table(name))


def test_a_killed_prepare_leaves_no_dataset_and_completes_when_run_again(lake, twin, pipeline_settings, config_file):
    results = []
    for each in (lake, twin):
        ingest(stage(IngestSettings, pipeline_settings, each, pipeline_settings["ingest"][0])[1], each)
        raw, settings = stage(PrepareSettings, pipeline_settings, each, pipeline_settings["prepare"])
        if each is lake:
            kill_after("sparkrec.stages.prepare:_write", "prepare", "--config", config_file(raw))
            assert any_path(each.root, "datasets/small/*/train/*.parquet")()
            with pytest.raises(InputError, match="no finished prepare run 'small'"):
                each.finished_run("prepare", "small")
        run = prepare(settings, each)
        results.append([rows(each.spark.read.parquet(f"{run.path}/{part}")) for part in ("train", "test", "users")])
    assert results[0] == results[1]


def test_sigterm_ends_a_fit_with_one_sentence(lake, pipeline_settings, config_file):
    als = {**pipeline_settings["train"][0]["model"], "iterations": 50, "snapshot_every": 1}
    ingest(stage(IngestSettings, pipeline_settings, lake, pipeline_settings["ingest"][0])[1], lake)
    prepare(stage(PrepareSettings, pipeline_settings, lake, pipeline_settings["prepare"])[1], lake)
    raw, _ = stage(TrainSettings, pipeline_settings, lake, {"dataset": "small", "model": als})
    code, said = terminate_when(command("train", "--config", config_file(raw)), snapshot(lake, 2))
    assert code == 143
    assert "\nerror: terminated. What was finished is kept" in said
    for trace in ("Traceback", "\tat ", " ERROR ", "Exception"):
        assert trace not in said


def snapshot(lake, iteration):
    return any_path(lake.root, f"models/*/*/scratch/*/iteration-{iteration:05d}/manifest.json")


def test_a_killed_fit_resumes_and_ends_with_the_same_factors(lake, twin, pipeline_settings, config_file, caplog):
    factors = []
    als = {**pipeline_settings["train"][0]["model"], "iterations": 60, "snapshot_every": 1}
    for each in (lake, twin):
        ingest(stage(IngestSettings, pipeline_settings, each, pipeline_settings["ingest"][0])[1], each)
        prepare(stage(PrepareSettings, pipeline_settings, each, pipeline_settings["prepare"])[1], each)
        part = {"dataset": "small", **pipeline_settings["train"][0], "model": als}
        raw, settings = stage(TrainSettings, pipeline_settings, each, part)
        if each is lake:
            arguments = command("train", "--config", config_file(raw))
            code, said = interrupt_when(arguments, snapshot(each, 3), snapshot(each, 8))
            assert code == 130
            assert "\nerror: interrupted. What was finished is kept" in said
            kill_when(arguments, snapshot(each, 14))
            with pytest.raises(InputError, match="no finished train run 'small-als'"):
                each.finished_run("train", "small-als")
            caplog.set_level("INFO")
        model = Model.load(each, train(settings, each))
        factors.append([np.array([row.value for row in side.orderBy(side.columns[0]).collect()])
                        for side in (model.users, model.items)])  # fmt: skip
        assert ("resuming after iteration" in caplog.text) or each is twin
    np.testing.assert_allclose(factors[0][0], factors[1][0], atol=1e-5)
    np.testing.assert_allclose(factors[0][1], factors[1][1], atol=1e-5)
