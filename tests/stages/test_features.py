"""Features from the source tables to recommendations: what a model sees of users, items and contexts."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

pytest.importorskip("torch")

from sparkrec import storage, tables
from sparkrec.config import (
    EvaluateSettings,
    IngestSettings,
    PipelineSettings,
    PrepareSettings,
    RecommendSettings,
    TrainSettings,
)
from sparkrec.configfile import validate
from sparkrec.errors import ConfigError, InputError, PrepareError
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.model.explain import contributions, importance
from sparkrec.spark.model.field_queries import bind, first_queries, latest_user_features, score_events
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.platform.lake import Lake
from sparkrec.spark.retrieval.topk import score_pairs, topk
from sparkrec.stages.evaluate import evaluate
from sparkrec.stages.ingest import ingest
from sparkrec.stages.pipeline import run
from sparkrec.stages.prepare import prepare
from sparkrec.stages.recommend import recommend
from sparkrec.stages.train import train

pytestmark = [pytest.mark.spark, pytest.mark.torch]

USERS, ITEMS, GENRES = 80, 60, 3
TRAINING = {
    "epochs": 12,
    "batch": 128,
    "learning_rate": 0.02,
    "init_scale": 0.1,
    "threads": 1,
    "negatives": 4,
    "user_l2": 0.003,
    "item_l2": 0.003,
}


def world(folder):
    """A log in which the user decides on the genre, item % 3, and the device on the form, item // 3 % 2; and tables of
    both sides."""
    rng = np.random.default_rng(1)
    user = np.repeat(np.arange(USERS), 16)
    device = rng.integers(0, 2, len(user))
    item = rng.integers(0, ITEMS // 6, len(user)) * 6 + device * 3 + user % GENRES
    stray = rng.random(len(user)) < 0.05
    item[stray] = rng.integers(0, ITEMS, stray.sum())
    events = {
        "user": [f"u{each}" for each in user],
        "item": item,
        "at": 1_600_000_000 + 3600 * rng.permutation(len(user)),
        "device": np.array(["phone", "tv"])[device],
        "battery": pa.array(rng.random(len(user)), mask=rng.random(len(user)) < 0.1),
    }
    genres = [[f"g{each % GENRES}", "all"] for each in range(ITEMS)]
    items = {"item": range(ITEMS), "genres": genres, "price": rng.random(ITEMS)}
    moves = {
        "user": ["u0", "u0", "u1"],
        "from": pa.array([0, 1_601_000_000, 0], pa.timestamp("s")),
        "city": list("abc"),
    }
    for name, table in (("events", events), ("items", items), ("users", moves)):
        pq.write_table(pa.table(table), folder / f"{name}.parquet", coerce_timestamps="us")
    return folder


def source(folder, name):
    return {"path": f"{folder}/{name}.parquet", "format": "parquet"}


def features(folder):
    return {
        "context": [
            {"kind": "categorical", "column": "device"},
            {"kind": "numeric", "column": "battery"},
            {"kind": "date", "part": "weekday"},
        ],
        "users": {
            "source": source(folder, "users"),
            "id": "user",
            "timestamp": "from",
            "fields": [{"kind": "categorical", "column": "city"}],
        },
        "items": {
            "source": source(folder, "items"),
            "id": "item",
            "fields": [{"kind": "multi", "column": "genres"}, {"kind": "numeric", "column": "price"}],
        },
    }


def ingested(lake, folder):
    columns = {"user": "user", "item": "item", "timestamp": "at", "context": ["device", "battery"]}
    settings = {"source": source(folder, "events"), "columns": columns, "timestamp_format": "seconds"}
    return {"lake": lake.root, **settings}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def trained(spark, folder, tmp_path_factory):
    """A lake with mf and als, which see no features, and fm and wide_deep, which do; and fm without context."""
    lake = Lake(spark, str(tmp_path_factory.mktemp("features") / "lake"))
    deep = {"dim": 8, "layers": [16], "crosses": [["user", "device"], ["device", "item"]], "cross_buckets": 500}
    models = [
        {"kind": "mf", "dim": 8, "training": TRAINING},
        {"kind": "fm", "dim": 8, "training": {**TRAINING, "stopping": {"patience": 20}}},
        {"kind": "wide_deep", **deep, "training": {**TRAINING, "learning_rate": 0.01}},
    ]
    given = ingested(lake, folder)
    settings = {
        "lake": given.pop("lake"),
        "ingest": [given],
        "prepare": {"dataset": "world", "dedup": "none", "features": features(folder)},
        "train": [{"model": model} for model in models],
        "evaluate": [{"cutoffs": [10], "segments": 1}],
    }
    run(validate(PipelineSettings, settings, "test"), lake)
    without = {**features(folder), "context": []}
    plain = {"lake": lake.root, "dataset": "plain", "dedup": "none", "features": without}
    prepare(validate(PrepareSettings, plain, "test"), lake)
    als = {"kind": "als", "rank": 8, "iterations": 3, "unobserved_weight": 0.1, "regularization": 0.05}
    for dataset, model in (("world", als), ("plain", {"kind": "fm", "dim": 8, "training": TRAINING})):
        train(validate(TrainSettings, {"lake": lake.root, "dataset": dataset, "model": model}, "test"), lake)
    return lake


def loaded(lake, name):
    return Model.load(lake, lake.finished_run("train", name))


def test_who_sees_the_context_knows_more(trained):
    rows = trained.table(tables.METRICS.name).where("metric = 'ndcg' AND k = 10").collect()
    found = {row.kind: row.value for row in rows}
    assert min(found["fm"], found["wide_deep"]) > 1.2 * found["mf"]


@pytest.mark.parametrize("kind", ["fm", "wide_deep"])
def test_an_event_has_the_score_with_which_it_is_ranked(trained, kind):
    model, dataset = loaded(trained, f"world-{kind}"), Dataset.open(trained, "world")
    rows = dataset.test.join(dataset.train.groupBy("item").count(), "item", "left_semi")
    alone = score_events(model, dataset, rows).toPandas().set_index(["user", "item"]).score
    pairs = score_pairs(bind(model, first_queries(dataset, rows)), rows.select("user", "item"))
    ranked = pairs.toPandas().set_index(["user", "item"]).score
    assert len(alone) > 60
    np.testing.assert_allclose(alone, ranked[alone.index], rtol=1e-4, atol=1e-5)


def test_a_ranking_sees_its_user_as_of_the_first_row_that_it_is_asked_for(trained):
    dataset = Dataset.open(trained, "plain")
    at = {row.user: row.rows for row in first_queries(dataset, dataset.train).collect()}
    events = dataset.train.toPandas().sort_values("timestamp").groupby("user").first()
    assert at == events.rows.to_dict()
    latest = {row.user: row.rows for row in latest_user_features(dataset).collect()}
    mover = dataset.users.where("user_id = 'u0'").first().user
    assert at[mover] != latest[mover]
    assert events.timestamp[mover] < pd.Timestamp(1_601_000_000, unit="s")


def test_folded_vectors_rank_as_brute_force_does(trained):
    """FM without context is two tables of vectors; scored pair by pair by the head, everything is the same."""
    model, dataset = loaded(trained, "plain-fm"), Dataset.open(trained, "plain")
    bound = bind(model, first_queries(dataset, dataset.test))
    assert bound.scorer is None
    best = topk(bound, 5).toPandas()
    everything = dataset.test.select("user").distinct().crossJoin(dataset.items.select("item"))
    queries = first_queries(dataset, dataset.test)
    now = F.lit("2100-01-01").cast("timestamp").alias("timestamp")
    events = everything.join(queries, "user").select("user", "item", now, "rows", "weights")
    scored = score_events(model, dataset, events).toPandas()
    scored["rank"] = scored.sort_values(["score", "item"], ascending=[False, True]).groupby("user").cumcount() + 1
    expected = scored[scored["rank"] <= 5].set_index(["user", "rank"]).sort_index()
    found = best.set_index(["user", "rank"]).sort_index()
    np.testing.assert_allclose(found.score, expected.score, rtol=1e-4, atol=1e-5)
    assert (found.item == expected.item).mean() > 0.98  # but for scores that are equal in 5 digits


def test_the_parts_of_a_score_add_up_to_it(trained):
    model, dataset = loaded(trained, "world-fm"), Dataset.open(trained, "world")
    parts = contributions(model, dataset, dataset.test).toPandas()
    assert len(parts) == dataset.test.count() * (8 + 28 + 1)  # fields, pairs of them, the constant
    total = parts.groupby(["user", "item"]).contribution.sum()
    scores = score_events(model, dataset, dataset.test).toPandas().set_index(["user", "item"]).score
    np.testing.assert_allclose(total[scores.index], scores, rtol=1e-3, atol=1e-4)
    strong = parts[parts.with_field.notna()].groupby(["field", "with_field"]).contribution.mean().nlargest(4)
    assert ("device", "item") in strong.index
    assert ("user", "item") in strong.index
    with pytest.raises(InputError, match="a wide_deep is no sum over fields and pairs of them, as lr and fm are"):
        contributions(loaded(trained, "world-wide_deep"), dataset, dataset.test)
    with pytest.raises(InputError, match="expected a model of features"):
        contributions(loaded(trained, "world-mf"), dataset, dataset.test)


@pytest.mark.parametrize("kind", ["fm", "wide_deep"])
def test_fields_that_matter_are_important_and_others_are_not(trained, kind):
    model, dataset = loaded(trained, f"world-{kind}"), Dataset.open(trained, "world")
    clicked = dataset.test.unionByName(dataset.validation)
    elsewhere = F.pmod(F.xxhash64("user", "item"), F.lit(ITEMS)).alias("item")  # nobody has taken it there
    shown = clicked.select("user", elsewhere, F.lit(-1.0).alias("value"), "timestamp", "rows", "weights")
    found = importance(model, dataset, clicked.select(*shown.columns).unionByName(shown))
    assert set(found) == {"user", "city", "device", "battery", "timestamp_weekday", "item", "genres", "price"}
    assert min(found["item"], found["device"]) > 0.03
    assert max(abs(found[name]) for name in ("city", "battery")) < 0.03


def test_clicks_are_measured_with_their_calibration(trained):
    settings = {"lake": trained.root, "model": "world-fm", "protocol": None, "clicks": True, "segments": 2}
    published = evaluate(validate(EvaluateSettings, settings, "test"), trained)
    report = storage.read_json(f"{published.path}/metrics.json")
    assert set(report["segments"]) >= {"all", "items:1/2", "items:2/2"}
    found = report["segments"]["all"]
    assert found["log_loss"] > 0
    assert np.isnan(found["click_auc"])  # every row is a click
    assert sum(row["rows"] for row in report["calibration"]) == USERS
    assert storage.exists(f"{published.path}/calibration.png")


def recommended(lake, **given):
    settings = validate(RecommendSettings, {"lake": lake.root, "k": 5, **given}, "test")
    published = recommend(settings, lake)
    rows = lake.table(tables.RECOMMENDATIONS.name).where(F.col("run") == published.id).where("NOT fallback")
    return rows.toPandas()


@pytest.mark.parametrize("more", [{}, {"retrieve": {"model": "world-als", "n": 40}}])
def test_recommendations_follow_the_context(trained, more):
    for form, device in enumerate(("phone", "tv")):
        context = {"device": device, "battery": None, "timestamp": "2020-09-14T12:00:00"}
        lists = recommended(trained, model="world-fm", context=context, exclude_seen=False, **more)
        assert len(lists) == 5 * USERS
        assert (lists.item_id // 3 % 2 == form).mean() > 0.8
        assert (lists.item_id % GENRES == lists.user_id.str[1:].astype(int) % GENRES).mean() > 0.8


def test_each_user_may_ask_in_a_context_of_their_own(trained, tmp_path):
    asks = {"user": ["u3", "u4"], "device": ["tv", "phone"], "battery": [0.5, None]}
    pq.write_table(pa.table(asks), tmp_path / "asks.parquet")
    users = {"source": source(tmp_path, "asks"), "column": "user"}
    lists = recommended(trained, model="world-fm", users=users, context={"timestamp": "2020-09-14"}, exclude_seen=False)
    assert set(lists.user_id) == {"u3", "u4"}
    with pytest.raises(InputError, match=r"context .* has no column 'battery', which feature 'battery' was fitted to"):
        recommended(trained, model="world-fm", context={"device": "tv", "timestamp": "2020-09-14"})
    context = {"device": "tv", "battery": "full", "timestamp": "2020-09-14"}
    with pytest.raises(InputError, match=r"context.battery: found 'full', expected a value of type double"):
        recommended(trained, model="world-fm", context=context)
    with pytest.raises(InputError, match=r"the model sees no weather; expected battery, device, timestamp"):
        recommended(trained, model="world-fm", context={"weather": "sunny"})
    pq.write_table(pa.table({**asks, "user": ["u3", "u3"]}), tmp_path / "asks.parquet")
    with pytest.raises(InputError, match="has user 'u3' 2 times, each in a context: expected one row of a user"):
        recommended(trained, model="world-fm", users=users, context={"timestamp": "2020-09-14"})


def test_what_does_not_fit_together_is_refused(trained):
    with pytest.raises(InputError, match="fitted to plain@.*, but world-fm@.* to world@.*. Train both on one dataset"):
        recommended(trained, model="world-fm", retrieve={"model": "plain-fm"})
    plain = Dataset.open(trained, "plain")
    with pytest.raises(InputError, match=r"fitted to features \w{16}, but those of dataset plain@\w+ are \w{16}"):
        score_events(loaded(trained, "world-fm"), plain, plain.test)
    model = {"kind": "wide_deep", "crosses": [["user", "genres"]], "training": TRAINING}
    with pytest.raises(ConfigError, match="crosses: genres have several values a row"):
        train(validate(TrainSettings, {"lake": trained.root, "dataset": "world", "model": model}, "test"), trained)


def test_features_that_cannot_be_are_refused(lake, folder):
    ingest(validate(IngestSettings, ingested(lake, folder), "test"), lake)

    def refused(match, error=PrepareError, **given):
        settings = {"lake": lake.root, "dataset": "d", "dedup": "none", "features": given}
        with pytest.raises(error, match=match):
            prepare(validate(PrepareSettings, settings, "test"), lake)

    context = {"kind": "categorical", "column": "battery"}
    refused(
        "feature 'battery': column 'battery' of the context is double, and categorical takes a string",
        context=[context],
    )
    refused("has no column 'mood'", InputError, context=[{"kind": "numeric", "column": "mood"}])
    users = {**features(folder)["users"], "timestamp": None}
    refused("has user 'u0' 2 times, expected once. Remove the repeated rows, or say which column", users=users)
    nothing = folder / "nothing.parquet"
    pq.write_table(pa.table({"item": range(5), "age": pa.array([None] * 5, pa.float64())}), nothing)
    items = {"source": source(folder, "nothing"), "id": "item", "fields": [{"kind": "numeric", "column": "age"}]}
    refused("feature 'age': column 'age' of the item is null in all", items=items)
