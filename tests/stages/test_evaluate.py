"""Evaluation of a published model: what is excluded, what is written, what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
from pyspark.sql import functions as F

from sparkrec import storage, tables
from sparkrec.config import EvaluateSettings, GivenCandidates, GivenSplit, LeaveLastOut, PrepareSettings, TrainSettings
from sparkrec.errors import EvaluateError, InputError
from sparkrec.spark.algorithms.popularity import PopularitySettings
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import dense
from sparkrec.spark.platform.lake import Lake
from sparkrec.stages.evaluate import evaluate, inputs

pytestmark = pytest.mark.spark

TRAIN = {0: [0], 1: [0, 1], 2: [3]}
VALIDATION = {0: [1], 1: [2]}
TEST = {0: [2], 1: [4], 2: [0]}
SCORES = np.array([[5, 4, 3, 2, 1], [5, 4, 3, 2, 1], [1, 2, 3, 4, 5]], float)


def cells(spark, split):
    rows = [(u, i, float(SCORES[u, i]) + 1, 1.0, None) for u, items in split.items() for i in items]
    return spark.createDataFrame(rows, tables.SPLIT.columns)


def publish_dataset(lake, name, candidates=None, validation=VALIDATION):
    """A finished dataset of 3 users and 5 items, as `prepare` leaves it."""
    split = GivenSplit(test="later", candidates="listed") if candidates else LeaveLastOut()
    run = lake.open_run("prepare", name, PrepareSettings(lake=lake.root, dataset=name, split=split), {})
    ids = {}
    for side, table, counts in (("user", tables.USERS, [1, 2, 1]), ("item", tables.ITEMS, [2, 1, 0, 1, 0])):
        known = [(i, f"{side}{i}", n) for i, n in enumerate(counts)]
        frame = lake.spark.createDataFrame(known, f"{side} long, {side}_id string, train_count long")
        lake.append(table.name, frame.drop("train_count"), "ids")
        ids[f"{side}s"] = {"table": table.name, "id": lake.table_id(table.name)}
        frame.write.parquet(f"{run.path}/{side}s")
    for part, split in (("train", TRAIN), ("validation", validation), ("test", TEST)):
        cells(lake.spark, split).write.parquet(f"{run.path}/{part}")
    if candidates:
        pairs = [(u, i) for u, items in candidates.items() for i in items]
        lake.spark.createDataFrame(pairs, tables.CANDIDATES.columns).write.parquet(f"{run.path}/candidates")
    return run.publish(ids=ids)


def publish_model(lake, dataset, include_validation=False):
    """A finished model whose scores are SCORES."""
    settings = TrainSettings(
        lake=lake.root, dataset=dataset.name, model=PopularitySettings(), include_validation=include_validation
    )

    def rows(key, matrix):
        numbers = [(i, *map(float, row)) for i, row in enumerate(matrix)]
        frame = lake.spark.createDataFrame(numbers, f"{key} long, a double, b double, c double")
        return dense(frame, key, *map(F.col, "abc"))

    model = Model(rows("user", np.eye(3)), rows("item", SCORES.T), 3, "dense", "dense")
    return model.save(lake.open_run("train", f"{dataset.name}-best", settings, {"dataset": dataset.reference}))


@pytest.fixture(scope="module")
def house(spark, tmp_path_factory):
    """A lake with a dataset, a model of it, and how to evaluate."""
    lake = Lake(spark, str(tmp_path_factory.mktemp("house") / "lake"))
    dataset = publish_dataset(lake, "plain")
    trained = publish_model(lake, dataset)

    def run(**settings):
        return evaluate(EvaluateSettings(**{"lake": lake.root, "model": trained.reference, **settings}), lake)

    return SimpleNamespace(lake=lake, dataset=dataset, trained=trained, run=run)


def test_the_test_split_is_ranked_without_train_and_validation(house):
    run = house.run(cutoffs=[1, 2], segments=1)
    # Left to rank, best first: user 0: 2 3 4; user 1: 3 4; user 2: 4 2 1 0. Held out: 2; 4; 0.
    metrics = run.manifest["metrics"]
    assert metrics["hit_rate@1"] == pytest.approx(1 / 3)
    assert metrics["hit_rate@2"] == pytest.approx(2 / 3)
    assert metrics["mrr@2"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert metrics["ndcg@2"] == pytest.approx((1 + 1 / np.log2(3) + 0) / 3)
    assert metrics["auc"] == pytest.approx((1 + 0 + 0) / 3)
    assert metrics["coverage@1"] == pytest.approx(3 / 5)
    assert run.manifest["users"] == 3


def test_the_validation_split_is_ranked_without_train_alone(house):
    # Left to rank: user 0: 1 2 3 4; user 1: 2 3 4. Held out: 1; 2. User 2 has nothing held out.
    metrics = house.run(split="validation", cutoffs=[1], segments=1).manifest["metrics"]
    assert metrics["hit_rate@1"] == 1
    assert metrics["auc"] == 1


def test_metrics_are_a_table_and_a_file_and_a_second_run_adds_nothing(house):
    run = house.run(cutoffs=[2], segments=2, ratings=True, clip=(0.0, 4.0))
    rows = house.lake.table("metrics").where(F.col("run") == run.id).collect()
    names = house.lake.table("metrics").columns
    assert names == [column.split()[0] for column in tables.METRICS.columns.split(", ")]
    assert {row.segment for row in rows} == {"all", "users:1/2", "users:2/2", "items:1/2", "items:2/2"}
    for row in rows:
        assert (row.model, row.kind, row.dataset) == (house.trained.reference, "popularity", house.dataset.reference)
        assert (row.split, row.protocol) == ("test", "full")
    table = {(row.segment, row.metric, row.k): (row.value, row.users) for row in rows}
    assert table["all", "recall", 2] == (pytest.approx(2 / 3), 3)
    assert table["all", "unpredicted", None][0] == 0
    assert table["all", "rmse", None][0] == pytest.approx(1)  # a value is its score + 1, and no score is clipped
    assert table["users:1/2", "recall", 2] == (pytest.approx(1 / 2), 2)
    report = storage.read_json(f"{run.path}/metrics.json")
    assert report["segments"]["all"]["recall@2"] == table["all", "recall", 2][0]
    assert run.manifest["metrics"]["rmse"] == table["all", "rmse", None][0]

    version = house.lake.table_version("metrics")
    assert house.run(cutoffs=[2], segments=2, ratings=True, clip=(0.0, 4.0)).manifest == run.manifest
    storage.delete(run.path)
    again = house.run(cutoffs=[2], segments=2, ratings=True, clip=(0.0, 4.0))
    assert again.manifest["metrics"] == run.manifest["metrics"]
    assert house.lake.table_version("metrics") == version


def test_inputs_are_pinned(house):
    settings = EvaluateSettings(lake=house.lake.root, model="plain-best")
    assert inputs(settings, house.lake) == {
        "model": house.trained.reference,
        "dataset": house.dataset.reference,
    }


def test_candidates_of_the_dataset_are_ranked_with_nothing_excluded(house):
    dataset = publish_dataset(house.lake, "listed", candidates={0: [0, 4], 1: [3], 2: [1, 2]})
    model = publish_model(house.lake, dataset)
    # Best first: user 0: 0 2 4; user 1: 3 4; user 2: 2 1 0.
    run = house.run(model=model.reference, protocol=GivenCandidates(), cutoffs=[2], segments=1)
    assert run.manifest["metrics"]["mrr@2"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
    assert run.manifest["metrics"]["auc"] == pytest.approx((1 / 2 + 0 + 0) / 3)


def test_what_cannot_be_measured_is_refused_with_what_to_do(house):
    with pytest.raises(EvaluateError, match="came without candidates"):
        house.run(protocol=GivenCandidates())
    seen_all = publish_model(house.lake, house.dataset, include_validation=True)
    with pytest.raises(EvaluateError, match="was fitted to train and validation together"):
        house.run(model=seen_all.reference, split="validation")
    empty = publish_model(house.lake, publish_dataset(house.lake, "short", validation={}))
    with pytest.raises(EvaluateError, match="has no row in that split"):
        house.run(model=empty.reference, split="validation")
    with pytest.raises(InputError, match="there is no finished train run 'nothing'"):
        house.run(model="nothing")


def test_users_examples_and_intervals_are_kept_for_the_report(spark, tmp_path):
    lake = Lake(spark, str(tmp_path / "lake"))
    publish_model(lake, publish_dataset(lake, "kept"))
    settings = EvaluateSettings(
        lake=lake.root,
        model="kept-best",
        cutoffs=[1, 2],
        segments=1,
        keep_users=True,
        bootstrap=50,
        metrics=["ndcg", "f1"],
    )
    run = evaluate(settings, lake)
    about = storage.read_json(f"{run.path}/metrics.json")
    rows = {row.user: row for row in spark.read.parquet(f"{run.path}/users").collect()}
    assert sorted(rows) == sorted(TEST)
    for name in ("ndcg@1", "ndcg@2", "f1@2", "auc"):
        mean = np.mean([row[name] for row in rows.values()])
        assert about["segments"]["all"][name] == pytest.approx(mean)
        low, high = about["intervals"]["all"][name]
        assert low <= mean <= high
    metrics = {row.metric: row for row in lake.table("metrics").where("k = 2 OR k IS NULL").collect()}
    assert metrics["f1"].standard_error >= 0
    assert metrics["coverage"].standard_error is None
    examples = {each["user"]: each for each in about["examples"]}
    assert set(examples) == {"user0", "user1", "user2"}
    assert examples["user0"] == {
        "user": "user0",
        "had": ["item0", "item1"],
        "recommended": ["item2", "item3"],
        "held_out": ["item2"],
    }


def test_items_of_examples_have_the_titles_of_a_table(lake, tmp_path):
    dataset = publish_dataset(lake, "titled")
    trained = publish_model(lake, dataset)
    table = tmp_path / "items.csv"

    def settings():
        titles = {"source": {"path": str(table), "format": "csv"}, "id": "sku", "title": "name"}
        return EvaluateSettings(lake=lake.root, model=trained.reference, cutoffs=[2], titles=titles)

    table.write_text("sku,name\nitem0,So What\nitem1,\nitem2,Naima\nstranger,Other\n")
    run = evaluate(settings(), lake)
    assert storage.read_json(f"{run.path}/metrics.json")["titles"] == {"item0": "So What", "item2": "Naima"}
    table.write_text("sku,name\nitem0,Blue Train\n")
    assert inputs(settings(), lake)["titles"] != run.inputs["titles"]
