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
    assert "model: " in wrong(TrainSettings, {**TRAIN, "model": {"kind": "magic"}})


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
