"""Each recipe of docs/recipes.md runs as it stands, on a small log with planted structure."""

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from sparkrec.cli import main

pytestmark = [pytest.mark.spark, pytest.mark.slow]

TEXT = (Path(__file__).parents[1] / "docs/recipes.md").read_text()
RECIPES = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE))
GROUPS, SIZE, USERS = 3, 6, 24


@pytest.fixture
def follow(spark, tmp_path, monkeypatch):
    """Do what a recipe says, in an empty folder; returns the names of its Python."""
    monkeypatch.chdir(tmp_path)
    files = spark._jvm.org.apache.hadoop.fs.FileSystem.get(spark._jsc.hadoopConfiguration())
    home = files.getWorkingDirectory()  # the JVM has a folder of its own, in which it was started
    files.setWorkingDirectory(spark._jvm.org.apache.hadoop.fs.Path(str(tmp_path)))

    def command(line):
        words = shlex.split(line)
        at = words.index("sparkrec")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (each.split("=", 1) for each in words[:at]):
                patch.setenv(name, value)
            patch.setattr(sys, "argv", words[at:])
            main()

    def follow(title):
        names = {}
        for kind, block in re.findall(r"^```(\w+)\n(.*?)^```", RECIPES[title], re.DOTALL | re.MULTILINE):
            if kind == "python":
                exec(compile(block, title, "exec"), names)  # our own file
            elif kind == "yaml":
                (tmp_path / re.match(r"# (\S+)", block)[1]).write_text(block)
            else:
                for line in block.splitlines():
                    command(line)
        return names

    yield follow
    files.setWorkingDirectory(home)


def metric(spark, name, model, k=None, **where):
    """Of all users, as the table has it."""
    rows = spark.read.format("delta").load("lake/metrics").where(f"metric = '{name}' AND segment = 'all'")
    for key, value in where.items():
        rows = rows.where(rows[key] == value)
    return [row.value for row in rows.collect() if row.model.startswith(f"{model}@") and row.k == k]


def tastes():
    """(user, item): each user has all items of a group but one, which is to be found."""
    pairs = [(f"u{u}", f"g{u % GROUPS}i{i}") for u in range(USERS) for i in range(SIZE)]
    held_out = [pairs[u * SIZE + u // GROUPS % SIZE] for u in range(USERS)]
    return [pair for pair in pairs if pair not in held_out], held_out


def write_csv(path, header, rows):
    Path(path).write_text("\n".join(",".join(map(str, row)) for row in [header, *rows]) + "\n")


def write_json(path, rows):
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def ratings():
    """User, item, rating, fold: a rating is the sum of what the user and the item are like."""
    rng = np.random.default_rng(0)
    return [(f"u{u}", f"i{i}", 1 + u % 3 + i % 3, rng.integers(2)) for u in range(20) for i in range(12)]


def test_every_recipe_is_tried():
    titles = re.findall(r"follow\(\"(.*?)\"\)", Path(__file__).read_text())
    assert set(titles) == set(RECIPES)


def test_sessions_find_what_comes_next(spark, follow):
    chain = [f"i{n}" for n in range(8)] * 2
    write_json("sessions.json", [{"session": f"a{n}", "items": chain[n % 8 :][:5]} for n in range(40)])
    begun = [{"session": f"b{n}", "prefix": chain[n : n + 2], "next": chain[n + 2]} for n in range(8)]
    write_json("prefixes.json", begun)
    follow("Sessions")
    assert metric(spark, "hit_rate", "sessions-markov", 1) == [1.0]
    assert len(metric(spark, "hit_rate", "sessions-item2vec", 5)) == 1
    first = spark.read.format("delta").load("lake/recommendations").where("rank = 1").collect()
    lists = {row.user_id: row.item_id for row in first}
    assert {each["session"]: lists[each["session"]] for each in begun} == {
        each["session"]: each["next"] for each in begun
    }


def test_files_that_are_split_are_used_as_they_are(spark, follow):
    train, held_out = tastes()
    write_csv("train.csv", ("user", "item"), train)
    write_csv("validation.csv", ("user", "item"), held_out[::2])
    write_csv("test.csv", ("user", "item"), held_out[1::2])
    follow("Ready-made train, validation and test")
    assert metric(spark, "hit_rate", "ready-ease", 5, split="validation") == [1.0]
    assert metric(spark, "hit_rate", "ready-ease-final", 5, split="test") == [1.0]
    assert metric(spark, "hit_rate", "ready-ease", 5, split="test") == []


def test_candidates_are_those_of_the_file(spark, follow):
    train, held_out = tastes()
    write_csv("train.csv", ("user", "item"), train)
    among = [f"g{g}i{i}" for g in range(GROUPS) for i in range(2)]
    write_json(
        "test.json",
        [{"user": u, "item": i, "among": [each for each in among if each[:2] != i[:2]]} for u, i in held_out],
    )
    follow("Given candidates")
    assert metric(spark, "hit_rate", "listed-ease", 1, protocol="candidates") == [1.0]


def test_folds_of_the_file_are_measured_one_by_one(spark, follow):
    write_csv("ratings.csv", ("user", "item", "rating", "fold"), ratings())
    follow("Explicit folds")
    assert [len(metric(spark, "rmse", f"fold-{fold}-bias")) for fold in range(2)] == [1, 1]
    assert max(metric(spark, "rmse", "fold-0-bias") + metric(spark, "rmse", "fold-1-bias")) < 0.7


def test_one_config_does_many_datasets(spark, follow):
    train, held_out = tastes()
    for name in ("films", "books"):
        write_csv(f"{name}.csv", ("user", "item"), [(u, f"{name}-{i}") for u, i in train + held_out])
    follow("Many datasets by one config")
    for name, cutoffs in (("films", [10]), ("books", [5, 10])):
        for k in (5, 10):
            knn, popular = (metric(spark, "hit_rate", f"{name}-{kind}", k) for kind in ("itemknn", "popularity"))
            assert len(knn) == len(popular) == (k in cutoffs)
    assert metric(spark, "recall", "books-itemknn", 5) > metric(spark, "recall", "books-popularity", 5)


def test_models_are_measured_each_in_its_way(spark, follow):
    write_csv("ratings.csv", ("user", "item", "rating"), [row[:3] for row in ratings()])
    follow("Two models evaluated differently")
    assert (
        len(metric(spark, "hit_rate", "rated-bias", 10)) == len(metric(spark, "hit_rate", "rated-popularity", 10)) == 1
    )
    assert (len(metric(spark, "rmse", "rated-bias")), metric(spark, "rmse", "rated-popularity")) == (1, [])


def test_a_data_frame_becomes_a_table_of_lists(spark, follow):
    train, held_out = tastes()
    write_csv("plays.csv", ("user", "item"), train)
    follow("A DataFrame to a served table")
    served = dict(spark.read.format("delta").load("served").collect())
    assert {user: served[user][0] for user, _ in held_out} == dict(held_out)
    nightly = dict(spark.read.format("delta").load("served-nightly").collect())
    assert {len(items) for items in nightly.values()} == {5}
    assert nightly.keys() == served.keys()
