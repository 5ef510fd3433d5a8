"""What settings alone tell to be wrong is told before anything runs, and before Spark starts."""

import subprocess
import sys

import pytest

from sparkrec import config
from sparkrec.cli import main
from sparkrec.configfile import validate
from sparkrec.errors import SparkrecError
from sparkrec.stages.catalog import STAGES

STOPPING = {"kind": "mf", "training": {"stopping": {}}}
BASE = {
    "train": {"dataset": "plays", "model": {"kind": "als"}},
    "tune": {"dataset": "plays", "model": {"kind": "als"}, "space": {"rank": [4, 8]}},
    "evaluate": {"model": "plays-als"},
    "run": {"prepare": {"dataset": "plays"}, "train": [{"model": {"kind": "als"}}]},
}
SEVERAL = {"kind": "mf", "training": {"processes": 2, "launcher": "horovod"}}


def refusal(stage, **more):
    """What `--dry-run` says, without a session."""
    with pytest.raises(SparkrecError) as error:
        STAGES[stage].check(validate(STAGES[stage].settings, {"lake": "x", **BASE[stage], **more}, stage))
    return str(error.value)


@pytest.mark.parametrize(
    ("stage", "change", "message"),
    [
        ("tune", {"metric": "ndgc@10"}, "metric 'ndgc@10' does not exist. Choose rmse, mae"),
        ("tune", {"metric": "ndcg"}, "one with a cutoff, as ndcg@10"),
        ("tune", {"metric": "ndcg@0"}, "metric 'ndcg@0' does not exist"),
        ("tune", {"folds": 1}, "1 fold leaves nothing to fit"),
        ("tune", {"space": {"rnk": [4]}}, "model.rnk: unknown key"),
        ("tune", {"space": {"rank": [4, "eight"]}}, "model.rank: Input should be a valid integer"),
        ("tune", {"space": {"rank": []}}, "space.rank"),
        ("tune", {"space": {"rank": {"low": 4.0, "high": 8.0}}}, "space.rank: a grid needs a list of values"),
        ("tune", {"search": "random", "space": {"rank": {"low": 8.0, "high": 4.0}}}, "low 8 and high 4"),
        ("tune", {"search": "random", "space": {"rank": {"low": 0.0, "high": 4.0, "log": True}}}, "low above 0"),
        ("evaluate", {"metrics": ["ndgc"]}, "found 'ndgc', expected any of"),
        ("evaluate", {"metrics": ["diversity"]}, "found diversity, which take items with a column vector"),
        ("evaluate", {"metrics": ["rmse"], "protocol": {"kind": "sampled"}}, "take relevant with a relevance"),
        ("evaluate", {"metrics": ["corrected_ndcg"]}, "take sampled_from"),
        ("evaluate", {"metrics": ["log_loss"]}, "take recommendations with a score"),
        ("evaluate", {"clip": [5.0, 1.0]}, "found 5 and 1, expected the lower bound first"),
        ("evaluate", {"cutoffs": [0]}, "cutoffs.0: Input should be greater than or equal to 1"),
        ("evaluate", {"protocol": {"kind": "candidates"}, "split": "validation"}, "come with test rows only"),
        ("train", {"model": {"kind": "linear"}}, "set model.users, model.items or both"),
        ("train", {"model": {"kind": "mf", "training": {"launcher": "local", "processes": 2}}}, "runs 1 process"),
        ("run", {"train": [{"model": {"kind": "als"}}, {"model": {"kind": "magic"}}]}, "model.kind: "),
        ("run", {"train": [{"model": {"kind": "sasrec"}}]}, "dataset plays has no sequences"),
        (
            "run",
            {"train": [{"model": {"kind": "wide_deep", "crosses": [["user", "hour"]]}}]},
            "crosses: found no field hour in the dataset, which has user, item",
        ),
        (
            "run",
            {"prepare": {"dataset": "plays", "split": {"kind": "ratio", "test": 0.5, "validation": 0.5}}},
            "test 0.5 and validation 0.5 leave nothing to train on",
        ),
        ("run", {"evaluate": [{"metrics": ["ndgc"]}]}, "found 'ndgc', expected any of"),
        ("run", {"evaluate": [{"protocol": {"kind": "candidates"}}]}, "came without candidates to rank"),
        ("run", {"evaluate": [{"importance": True}]}, "model plays-als sees no features"),
        ("run", {"evaluate": [{"model": "plays-asl"}]}, "no finished train run 'plays-asl'"),
        ("run", {"recommend": {"model": "plays-asl"}}, "no finished train run 'plays-asl'"),
        ("run", {"recommend": {"retrieve": {"model": "plays-asl"}}}, "no finished train run 'plays-asl'"),
        (
            "run",
            {
                "prepare": {"dataset": "plays", "split": {"kind": "ratio", "validation": 0.0}},
                "train": [{"model": STOPPING}],
            },
            "training.stopping needs a validation split, and dataset plays has none",
        ),
        (
            "run",
            {"prepare": {"dataset": "plays", "split": {"kind": "fold"}}, "evaluate": [{"split": "validation"}]},
            "dataset plays has no validation split",
        ),
        (
            "run",
            {
                "train": [{"include_validation": True, "model": {"kind": "als"}}],
                "evaluate": [{"split": "validation"}],
            },
            "model plays-als was fitted to train and validation together",
        ),
    ],
)
def test_what_settings_alone_tell_is_told_before_anything_runs(stage, change, message):
    assert message in refusal(stage, **change)


def test_processes_that_nothing_can_start_are_refused_before_anything_runs(monkeypatch):
    monkeypatch.setattr("sparkrec.models.base.settings.find_spec", lambda name: None)
    for stage, change in (
        ("train", {"model": SEVERAL}),
        ("tune", {"model": SEVERAL, "space": {}}),
        ("run", {"train": [{"model": SEVERAL}]}),
    ):
        assert "launcher horovod needs Horovod, which is not installed" in refusal(stage, **change)


def test_a_model_whose_package_is_not_installed_is_refused_and_others_are_not():
    code = """
import sys
sys.modules["torch"] = None  # as if it were not installed
from sparkrec.config import TrainSettings
from sparkrec.configfile import validate
from sparkrec.errors import ConfigError
for kind in ("als", "mf"):
    try:
        print(validate(TrainSettings, {"lake": "x", "dataset": "y", "model": {"kind": kind}}, "test").model.kind)
    except ConfigError as error:
        print(error)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert told == [
        "als",
        "model mf needs torch, which is not installed: install sparkrec[train], or sparkrec[horovod]",
    ]


def test_the_command_line_checks_before_it_starts_spark(monkeypatch, capsys):
    monkeypatch.setattr(
        "sparkrec.spark.platform.session.open_session", lambda settings: pytest.fail("Spark was started")
    )
    monkeypatch.setattr(
        sys,
        "argv",
        ["sparkrec", "tune", "lake=x", "dataset=plays", "model.kind=als", "space={}", "metric=ndgc@10", "--dry-run"],
    )
    with pytest.raises(SystemExit):
        main()
    assert "metric 'ndgc@10' does not exist" in capsys.readouterr().err


def test_an_evaluation_of_the_pipeline_is_of_the_model_that_it_names_or_of_all():
    from sparkrec.stages.pipeline import Plan

    raw = {
        "lake": "x",
        "prepare": {"dataset": "plays"},
        "train": [{"model": {"kind": "als"}}, {"model": {"kind": "ease"}}],
        "evaluate": [{"cutoffs": [5]}, {"model": "plays-ease", "cutoffs": [7]}],
    }
    models = [("plays-als", "plays-als@aaaaaaaaaaaa"), ("plays-ease", "plays-ease@bbbbbbbbbbbb")]
    found = Plan(validate(config.PipelineSettings, raw, "test")).evaluations(models)
    assert [(each.model, each.cutoffs) for each in found] == [
        ("plays-als@aaaaaaaaaaaa", [5]),
        ("plays-ease@bbbbbbbbbbbb", [5]),
        ("plays-ease@bbbbbbbbbbbb", [7]),
    ]


def test_every_stage_has_its_settings_by_name():
    assert {name: stage.settings for name, stage in STAGES.items()} == config.STAGES
