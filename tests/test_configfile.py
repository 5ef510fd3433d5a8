"""Settings come from YAML and overrides; what is wrong is named by its key."""

import pytest

from sparkrec.config import FoldSplit, PrepareSettings, TrainSettings
from sparkrec.configfile import load, override, read_yaml, validate
from sparkrec.errors import ConfigError

TRAIN = {"lake": "x", "dataset": "plays", "model": {"kind": "als", "rank": 8}}


def wrong(settings_class, raw):
    with pytest.raises(ConfigError) as error:
        validate(settings_class, raw, "conf/x.yaml")
    return str(error.value)


def test_a_typo_is_named_with_the_path_of_its_key():
    message = wrong(TrainSettings, {**TRAIN, "model": {"kind": "als", "rnk": 8}})
    assert message == "conf/x.yaml has 1 wrong setting(s):\n  model.rnk: unknown key. Remove it or correct its name."


def test_a_value_out_of_range_is_refused_with_the_range():
    message = wrong(TrainSettings, {**TRAIN, "model": {"kind": "als", "rank": 0}})
    assert "model.rank: Input should be greater than or equal to 1; found 0." in message


@pytest.mark.parametrize("value", ["8", 8.5, True, None])
def test_a_value_of_the_wrong_type_is_refused_not_converted(value):
    assert "model.rank: Input should be a valid integer" in wrong(
        TrainSettings, {**TRAIN, "model": {"kind": "als", "rank": value}}
    )


def test_a_missing_key_and_an_unknown_kind_are_named():
    assert "dataset: required, but not set." in wrong(TrainSettings, {"lake": "x", "model": {"kind": "bias"}})
    assert "model.kind: Input should be one of afm, als, " in wrong(
        TrainSettings, {**TRAIN, "model": {"kind": "magic"}}
    )


@pytest.mark.parametrize("name", ["../x", "a/b", "", "a;b", "a`b"])
def test_a_name_that_would_leave_its_folder_is_refused(name):
    assert "dataset: " in wrong(PrepareSettings, {"lake": "x", "dataset": name})


def test_settings_that_contradict_each_other_are_refused():
    model = {"kind": "als", "biases": True, "unobserved_weight": 0.1}
    assert "biases are for explicit feedback" in wrong(TrainSettings, {**TRAIN, "model": model})
    assert "fold 5 does not exist among 5" in wrong(FoldSplit, {"folds": 5, "fold": 5})


def test_overrides_reach_into_mappings_and_lists_and_leave_the_file_alone():
    raw = {"model": {"kind": "als"}, "evaluate": [{"cutoffs": [10]}]}
    changed = override(
        raw, ["model.rank=16", "model.regularization=1e-3", "evaluate.0.cutoffs=[5, 20]", "spark.master=local"]
    )
    assert changed["model"] == {"kind": "als", "rank": 16, "regularization": 0.001}
    assert changed["evaluate"][0]["cutoffs"] == [5, 20]
    assert changed["spark"] == {"master": "local"}
    assert raw == {"model": {"kind": "als"}, "evaluate": [{"cutoffs": [10]}]}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("rank", "'rank' is not an override: expected key.sub=value."),
        ("train.3.seed=1", "train.3: '3' is not an entry of a list of 1"),
        ("lake.sub=1", "lake: there is no key|lake holds 'x', which has no keys"),
        ("lake=[", "lake is not valid YAML"),
    ],
)
def test_an_override_that_fits_nowhere_says_why(assignment, message):
    with pytest.raises(ConfigError, match=message):
        override({"lake": "x", "train": [{}]}, [assignment])


def test_a_config_that_cannot_be_read_says_so(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the config .*nothing.yaml: No such file"):
        read_yaml(tmp_path / "nothing.yaml")
    path = tmp_path / "x.yaml"
    path.write_text("- a\n- b")
    with pytest.raises(ConfigError, match="holds list, expected a mapping"):
        read_yaml(path)
    path.write_text("a: !!python/object/apply:os.system ['true']")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        read_yaml(path)


def test_environment_variables_fill_paths(tmp_path, monkeypatch):
    path = tmp_path / "x.yaml"
    path.write_text("lake: ${SOMEWHERE}/lake\ndataset: plays\nmodel: {kind: bias}")
    monkeypatch.setenv("SOMEWHERE", "/data")
    assert load(TrainSettings, path).lake == "/data/lake"
    monkeypatch.delenv("SOMEWHERE")
    with pytest.raises(ConfigError, match="needs the environment variable SOMEWHERE"):
        load(TrainSettings, path)


def run_of(text, tmp_path, settings=TrainSettings, **variables):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        return load(settings, path)


NETWORK = "lake: x\ndataset: plays\nmodel: {kind: mlp, layers: '${LAYERS:-[8, 4]}', training: {epochs: \"${EPOCHS}\"}}"


def test_an_environment_variable_is_a_number_or_a_list_where_the_setting_is(tmp_path):
    model = run_of(NETWORK, tmp_path, EPOCHS="7", LAYERS="[16, 8]").model
    assert (model.training.epochs, model.layers) == (7, [16, 8])
    text = "lake: x\ndataset: d\nmodel: {kind: als, biases: true, regularization: '${R}'}\ninclude_validation: ${ALL}"
    settings = run_of(text, tmp_path, R="1e-3", ALL="true")
    assert (settings.model.regularization, settings.include_validation) == (0.001, True)


def test_an_environment_variable_is_text_where_the_setting_is(tmp_path):
    text = "lake: ${YEAR}\ndataset: d\nname: ${NAME}\nspark: {conf: {a: '${ON}', b: '${LIST}'}}\nmodel: {kind: bias}"
    settings = run_of(text, tmp_path, YEAR="2024", NAME="1e3", ON="true", LIST="[1")
    assert (settings.lake, settings.name, settings.spark.conf) == ("2024", "1e3", {"a": "true", "b": "[1"})


def test_the_default_of_a_variable_stands_where_it_is_not_set_or_empty(tmp_path):
    assert run_of(NETWORK, tmp_path, EPOCHS="1").model.layers == [8, 4]
    assert run_of(NETWORK, tmp_path, EPOCHS="1", LAYERS="").model.layers == [8, 4]
    assert run_of("lake: ${NOWHERE:-/tmp}/lake\ndataset: d\nmodel: {kind: bias}", tmp_path).lake == "/tmp/lake"


def test_a_variable_of_the_wrong_type_is_named_by_the_key_it_fills(tmp_path):
    with pytest.raises(ConfigError, match=r"model.training.epochs: Input should be a valid integer.*found 'many'"):
        run_of(NETWORK, tmp_path, EPOCHS="many")


def test_variables_reach_the_entries_of_a_pipeline_and_overrides(tmp_path, monkeypatch):
    from sparkrec.config import PipelineSettings
    from sparkrec.stages.pipeline import Plan

    entry = tmp_path / "train.yaml"
    entry.write_text("model: {kind: als, rank: '${RANK}'}")
    monkeypatch.setenv("RANK", "12")
    monkeypatch.setenv("FOLDER", str(tmp_path))
    path = tmp_path / "run.yaml"
    path.write_text("lake: x\nprepare: {dataset: '${RANK}'}\ntrain: ['${FOLDER}/train.yaml', {model: {kind: als}}]")
    plan = Plan(load(PipelineSettings, path, ["train.1.model.rank=${RANK}"]))
    assert plan.prepare.dataset == "12"
    assert [each.model.rank for each in plan.train] == [12, 12]
