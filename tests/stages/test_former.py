"""A dataset that takes over the rows of the one before it is the one that would be made as a whole."""

import datetime as dt
import re
from pathlib import Path

import numpy as np
import pytest

from sparkrec.config import (
    ColdItems,
    ExplicitFeedback,
    FoldSplit,
    ImplicitFeedback,
    LeaveLastOut,
    PrepareSettings,
    RatioSplit,
    RecentDays,
    SequenceSettings,
)
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.data.touched import touched
from sparkrec.spark.platform import few
from sparkrec.stages import former
from sparkrec.stages.prepare import open_run, prepare

pytestmark = [pytest.mark.spark, pytest.mark.slow]

START = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)
SCHEMA = "user_id string, item_id string, rating double, timestamp timestamp, event string, batch string"
WANTED = {
    "recent": {"split": RecentDays(test=3.0, validation=2.0), "feedback": ImplicitFeedback(threshold=3.0)},
    "fold": {"split": FoldSplit(folds=3), "dedup": "none", "feedback": ExplicitFeedback(scale="quantile")},
    "cold-items": {"split": ColdItems(test=0.3), "dedup": "sum", "event_weights": {"view": 1.0, "buy": 3.0}},
    "leave-last-out": {"split": LeaveLastOut(), "sequences": SequenceSettings()},
    "ratio": {"split": RatioSplit(), "min_user_interactions": 4, "dedup": "max"},
}


def events(spark, batch, n, users, days, seed=0):
    rng = np.random.default_rng(seed)
    rows = [
        (
            f"u{rng.integers(*users)}", f"i{rng.integers(12)}", float(rng.integers(1, 6)),
            START + dt.timedelta(days=float(rng.integers(*days)), seconds=int(rng.integers(1000))),
            ("view", "buy")[rng.integers(2)], batch,
        )
        for _ in range(n)
    ]  # fmt: skip
    return spark.createDataFrame(rows, SCHEMA)


@pytest.fixture
def worth_it(monkeypatch):
    monkeypatch.setattr(former, "WORTH", 0)
    monkeypatch.setattr(former, "_SHARE", 0.5)


def made(lake, name, **changes):
    return prepare(PrepareSettings(lake=lake.root, interactions="plays", dataset=name, **changes), lake)


def contents(lake, run):
    """All rows of a dataset, and what its manifest says of them."""
    dataset = Dataset.open(lake, run.reference)
    frames = [dataset.train, dataset.validation, dataset.test, dataset.users, dataset.items, dataset.sequences]
    facts = {key: run.manifest[key] for key in ("counts", "interactions_per_user", "found", "times")}
    return [sorted(map(str, frame.collect())) for frame in frames if frame is not None], facts


def test_a_dataset_is_the_same_whether_rows_are_taken_over_or_made_anew(lake, worth_it, monkeypatch):
    """Rows come, go and change, of users who were there and others; an old and a new table of ids are the same."""
    spark = lake.spark
    lake.append("plays", events(spark, "first", 400, (0, 40), (0, 25)), "first")
    before = {name: made(lake, name, **wanted) for name, wanted in WANTED.items()}
    assert all(run.manifest["taken_over"] is None for run in before.values())

    lake.append("plays", events(spark, "second", 30, (35, 44), (10, 28), seed=1), "second")
    lake.delete_rows("plays", "user_id = 'u3' AND item_id < 'i5'")
    lake.update_rows("plays", "rating", "rating + 0.5", "user_id = 'u4'")
    for at, (name, wanted) in enumerate(WANTED.items()):
        spark.conf.set(few.SETTING, ("never", "always")[at % 2])
        after = made(lake, name, **wanted)
        spark.conf.unset(few.SETTING)
        taken_over = after.manifest["taken_over"]
        assert taken_over["from"] == before[name].reference
        number, _, what = taken_over["but_for"].partition(" ")
        assert 0 < int(number) < after.manifest["counts"]["users" if what == "users" else "rows"]
        with monkeypatch.context() as patched:
            patched.setattr("sparkrec.stages.prepare.find_former", lambda *_: None)
            whole = made(lake, f"{name}-whole", **wanted)
        assert contents(lake, after) == contents(lake, whole), name


def test_what_has_not_changed_is_taken_over_as_a_whole(lake, worth_it):
    lake.append("plays", events(lake.spark, "first", 100, (0, 40), (0, 25)), "first")
    before = made(lake, "shop", split=FoldSplit(folds=3))
    lake.append("plays", events(lake.spark, "none", 0, (0, 40), (0, 25)), "none")
    after = made(lake, "shop", split=FoldSplit(folds=3))
    assert after.manifest["taken_over"] == {"from": before.reference, "but_for": "0 pairs of user and item"}
    assert contents(lake, after) == contents(lake, before)


def test_a_dataset_that_is_made_as_a_whole_says_why(lake, worth_it, caplog):
    lake.append("plays", events(lake.spark, "first", 100, (0, 40), (0, 25)), "first")
    folds, recent = {"split": FoldSplit(folds=3)}, {"split": RecentDays(), "min_user_interactions": 2}
    made(lake, "folds", **folds)
    made(lake, "recent", **recent)
    lake.append("plays", events(lake.spark, "second", 200, (0, 40), (10, 28), seed=1), "second")

    def reason(name, **changes):
        settings = PrepareSettings(lake=lake.root, interactions="plays", dataset=name, **changes)
        caplog.clear()
        with caplog.at_level("INFO", "sparkrec"):
            assert former.find(settings, lake, open_run(settings, lake)) is None
        return "".join(caplog.messages).partition("is made as a whole: ")[2]

    assert reason("never") == ""
    assert reason("folds", **folds, dedup="max").endswith("with other settings or by another version of sparkrec")
    assert reason("folds", min_item_interactions=2) == "with min_item_interactions an item depends on all its users"
    assert reason("recent", **recent).endswith("of users without min_user_interactions, too")
    assert re.match(r"\d+ pairs of user and item of \d+ have changed since folds@", reason("folds", **folds))


def test_a_version_whose_files_were_vacuumed_is_not_needed(lake, worth_it, caplog):
    lake.append("plays", events(lake.spark, "first", 100, (0, 40), (0, 25)), "first")
    made(lake, "shop")
    lake.delete_rows("plays", "user_id = 'u3'")
    stay = {Path(file).name for file in lake.table("plays").inputFiles()}
    for file in Path(lake.place("plays")).glob("*.parquet"):
        if file.name not in stay:
            file.unlink()
    with caplog.at_level("INFO", "sparkrec"):
        assert made(lake, "shop").manifest["taken_over"] is None
    assert "is made as a whole: version 0 of the table cannot be read: " in caplog.text


def test_small_datasets_are_made_as_a_whole_without_a_look_at_what_has_changed(lake, monkeypatch):
    monkeypatch.setattr(former, "touched", lambda *_: pytest.fail("looked"))
    lake.append("plays", events(lake.spark, "first", 100, (0, 40), (0, 25)), "first")
    made(lake, "shop")
    lake.append("plays", events(lake.spark, "second", 10, (0, 40), (10, 28), seed=1), "second")
    assert made(lake, "shop").manifest["taken_over"] is None


def test_keys_are_touched_whose_rows_come_more_or_less_often(spark):
    def rows(*some):
        return spark.createDataFrame(
            [(*each, "b") for each in some], "user_id long, item_id long, rating double, batch string"
        )

    before = rows((1, 1, 1.0), (1, 1, 1.0), (2, 1, 1.0), (3, 1, None), (4, 1, 1.0), (5, 1, 1.0), (5, 2, 2.0))
    now = rows((1, 1, 1.0), (2, 1, 1.0), (3, 1, 1.0), (5, 1, 2.0), (5, 2, 1.0), (6, 1, 1.0))
    found = touched(before, now, ["user_id"], ["user_id", "item_id", "rating"])
    assert sorted(row[0] for row in found.collect()) == [1, 3, 4, 5, 6]
    assert touched(before, before.repartition(3), ["user_id"], ["user_id", "item_id", "rating"]).count() == 0
