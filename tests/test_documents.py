"""What README and guides show runs, and is valid."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from sparkrec.cli import main
from sparkrec.config import PrepareSettings, RecommendSettings, RetrainSettings, StageSettings, TrainSettings
from sparkrec.configfile import read_yaml, validate

ROOT = Path(__file__).parents[1]


@pytest.mark.spark
def test_the_examples_of_the_readme_run(spark):
    names: dict = {}
    for example in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        exec(compile(example, "README.md", "exec"), names)  # our own file
    assert names["model"].recommend(k=2).count() == 4
    assert names["fitted"].recommendForAllUsers(2).count() == 3
    assert names["accuracy"].count() == 4


@pytest.mark.spark
def test_the_examples_of_the_guide_to_exporting_run(spark, tmp_path, monkeypatch):
    text = (ROOT / "docs/export.md").read_text()
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for example in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(example, "docs/export.md", "exec"), names)  # our own file
    assert names["answer"].by == "popularity"
    assert names["new"].items == ["blue train"]
    assert sorted(names["all_of_it"].items) == ["blue train", "naima", "so what"]
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    given = {"lake": "lake", "name": "shop", "prepare": {}, "train": {}, **yaml.safe_load(example)}
    validate(RetrainSettings, given, "docs/export.md")


def test_the_settings_of_the_guide_to_features_are_valid():
    prepare, recommend = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/features.md").read_text(), re.DOTALL)
    given = {"lake": "lake", "dataset": "plays", **yaml.safe_load(prepare)}
    validate(PrepareSettings, given, "docs/features.md")
    validate(RecommendSettings, {"lake": "lake", **yaml.safe_load(recommend)}, "docs/features.md")


def test_the_settings_of_the_guide_to_sequences_are_valid():
    examples = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/sequences.md").read_text(), re.DOTALL)
    stages = (PrepareSettings, {"dataset": "plays"}), (TrainSettings, {}), (RecommendSettings, {})
    for (settings, more), example in zip(stages, examples, strict=True):
        validate(settings, {"lake": "lake", **more, **yaml.safe_load(example)}, "docs/sequences.md")


def test_the_settings_of_the_guide_to_retraining_are_valid(monkeypatch):
    monkeypatch.setenv("SHOP_WEBHOOK", "https://chat.example/hook")
    night = read_yaml(ROOT / "conf/retrain/demo.yaml")
    for example in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/retraining.md").read_text(), re.DOTALL):
        validate(RetrainSettings, {**night, **yaml.safe_load(example)}, "docs/retraining.md")


def test_a_schedule_is_rendered_by_the_commands_of_the_guide_to_retraining(tmp_path, monkeypatch, capsys):
    commands = re.findall(r"^ +(sparkrec schedule render .*)$", (ROOT / "docs/retraining.md").read_text(), re.MULTILINE)
    assert len(commands) == 4
    shutil.copytree(ROOT / "conf/retrain", tmp_path / "conf/retrain")
    monkeypatch.chdir(tmp_path)
    for command in commands:
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        main()
    assert "0 3 * * * cd " in capsys.readouterr().out
    assert all((tmp_path / file).exists() for file in ("dags/retrain_demo.py", "databricks.yml", "night.sh"))


def test_the_config_of_the_guide_to_configuration_is_valid():
    (example,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/configuration.md").read_text(), re.DOTALL)
    validate(TrainSettings, yaml.safe_load(example), "docs/configuration.md")


CONFIGS = {f"{path.parent.name}/{path.stem}": path for path in sorted((ROOT / "conf").glob("*/*.yaml"))}


@pytest.mark.parametrize("path", CONFIGS.values(), ids=CONFIGS)
def test_every_config_is_valid_for_its_stage(path, monkeypatch):
    from sparkrec.stages.catalog import STAGES
    from sparkrec.stages.pipeline import Plan

    monkeypatch.setenv("SPARKREC_DATA", "/data")
    monkeypatch.chdir(ROOT)
    stage = "run" if path.parent.name == "pipeline" else path.parent.name
    settings = validate(STAGES[stage].settings, read_yaml(path), str(path))
    assert isinstance(settings, StageSettings)
    if stage == "run":
        Plan(settings)
