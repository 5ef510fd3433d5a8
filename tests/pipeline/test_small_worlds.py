"""The whole pipeline on the smallest logs there are: it works, or says in a sentence why not."""

import pytest

from sparkrec.config import PipelineSettings
from sparkrec.configfile import validate
from sparkrec.errors import InputError, PrepareError
from sparkrec.stages.pipeline import plan, run

pytestmark = pytest.mark.spark

MODELS = [
    {"kind": "als", "rank": 2, "iterations": 2, "unobserved_weight": 0.1, "user_blocks": 2, "item_blocks": 2},
    {"kind": "itemknn"},
    {"kind": "userknn"},
    {"kind": "ease"},
    {"kind": "popularity"},
]


def pipeline(lake, tmp_path, pairs, k=1, models=MODELS):
    """Run all stages over (user, item) pairs, a second apart."""
    return run(settings_of(lake, tmp_path, pairs, k, models), lake)


def settings_of(lake, tmp_path, pairs, k, models, batch=None):
    path = tmp_path / "log.csv"
    path.write_text("user,item,ts\n" + "".join(f"{u},{i},{n}\n" for n, (u, i) in enumerate(pairs)))
    raw = {
        "lake": lake.root,
        "ingest": [
            {
                "source": {"path": str(path), "format": "csv"},
                "columns": {"timestamp": "ts"},
                "timestamp_format": "seconds",
                "batch": batch,
            }
        ],
        "prepare": {"dataset": "tiny", "split": {"kind": "leave_last_out", "validation": 0}},
        "train": [{"model": model} for model in models],
        "evaluate": [{"cutoffs": [1]}],
        "recommend": {"k": k},
    }
    return validate(PipelineSettings, raw, "test")


def test_one_user_is_enough_for_every_model(lake, tmp_path):
    result = pipeline(lake, tmp_path, [("u", "a"), ("u", "b"), ("u", "c")])
    assert [each.manifest["users"] for each in result.evaluations] == [1] * len(MODELS)
    assert [row.item_id for row in lake.table("recommendations").collect()] == ["c"]


def test_one_item_leaves_nothing_to_hold_out_and_says_so(lake, tmp_path):
    with pytest.raises(PrepareError, match="test"):
        pipeline(lake, tmp_path, [("u", "a"), ("v", "a")])


def test_more_recommendations_than_items_are_refused_with_both_numbers(lake, tmp_path):
    pairs = [(user, item) for user in "uvw" for item in "abc"]
    with pytest.raises(InputError, match=r"\b9\b.*\b3\b"):
        pipeline(lake, tmp_path, pairs, k=9, models=MODELS[-1:])


def test_running_a_finished_pipeline_again_finds_everything_and_adds_nothing(lake, tmp_path):
    pairs = [(user, item) for user in "uvw" for item in "abcd" if user + item != "ua"]
    first = pipeline(lake, tmp_path, pairs, models=MODELS[1:2])
    counts = {name: lake.table(name).count() for name in ("interactions", "metrics", "recommendations")}
    again = pipeline(lake, tmp_path, pairs, models=MODELS[1:2])
    assert again.batches[0].repeated
    assert [run.reference for run in again.models] == [run.reference for run in first.models]
    assert again.recommendations.id == first.recommendations.id
    assert {name: lake.table(name).count() for name in counts} == counts


def test_a_dry_run_says_what_each_stage_would_write_and_what_is_there_already(lake, tmp_path):
    pairs = [(user, item) for user in "uvw" for item in "abcd" if user + item != "ua"]
    settings = settings_of(lake, tmp_path, pairs, 1, MODELS[1:2], batch="first")
    before = plan(settings, lake).report()
    assert before["ingest"][0]["finished"] == "no"
    assert before["ingest"][0]["writes"] == [
        lake.path(name) for name in ("interactions", "interactions_rejected", "interactions_batches")
    ]
    assert before["prepare"][0]["run"] == "tiny@<id>"
    assert before["train"][0]["writes"] == [lake.path("models/tiny-itemknn/<id>")]
    assert before["recommend"][0]["writes"][-1] == lake.path("recommendations")
    assert not lake.has_table("interactions")

    result = run(settings, lake)
    after = plan(settings, lake).report()
    assert {entry["finished"] for entries in after.values() for entry in entries} == {"yes: nothing would be done"}
    assert after["prepare"][0]["run"] == result.dataset.reference
    assert after["train"][0]["run"] == result.models[0].reference
    assert f"{result.models[0].path}/users" in after["train"][0]["writes"]
    assert after["evaluate"][0]["run"] == result.evaluations[0].reference
    assert after["recommend"][0]["run"] == result.recommendations.reference

    changed = plan(settings.model_copy(update={"recommend": {"k": 2}}), lake).report()
    assert changed["recommend"][0]["finished"] == "no"
    assert changed["evaluate"][0]["finished"] == "yes: nothing would be done"
