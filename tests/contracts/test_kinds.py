"""What every kind of model does, those of others included: fitted to a DataFrame, asked, kept and read again."""

from collections import Counter
from dataclasses import replace

import pytest
from pyspark.sql import functions as F

pytest.importorskip("torch")

from sparkrec import ExportedModel, Recommender, fit
from sparkrec.config import TrainSettings, TuneSettings, declaration, kinds
from sparkrec.configfile import validate
from sparkrec.errors import ConfigError, InputError
from sparkrec.spark.model.serving import bind
from sparkrec.spark.platform.few import SETTING
from sparkrec.spark.platform.lake import Lake
from sparkrec.stages.train import train
from sparkrec.stages.tune import tune
from tests.contracts import own_kinds

pytestmark = [pytest.mark.spark, pytest.mark.torch]

TRAINING = {"epochs": 2, "batch": 64, "threads": 1}
SMALL = {"als": {"rank": 3, "iterations": 2}, "neumf": {"dim": 3, "layers": [4, 2]}, "mlp": {"layers": [4, 2]}}
SMALL |= {kind: {"layers": [4]} for kind in ("nfm", "deepfm", "wide_deep", "dcn")}
NEEDS_TABLES = ["linear"]
"""Attributes come in tables of their own, beside the frame."""
OF_FRAMES = [kind for kind in kinds() if kind not in NEEDS_TABLES]


def small(kind):
    """Settings with which a fit takes no time."""
    fields = declaration(kind).settings.model_fields
    more = {"dim": 3} if "dim" in fields else {}
    return more | ({"training": TRAINING} if "training" in fields else {}) | SMALL.get(kind, {})


@pytest.fixture(scope="module")
def ratings(spark):
    """30 users in two groups with a taste each, and 12 items; a user has five or six, in an order."""
    rows = [
        (
            f"u{u}",
            f"i{(u % 2) * 6 + (u * 5 + n * 7) % 6}",
            float(1 + (u * n) % 5),
            f"2024-01-{1 + n:02} 0{u % 10}:00:00",
        )
        for u in range(30)
        for n in range(5 + u % 2)
    ]
    return spark.createDataFrame(rows, "who string, what string, stars double, at string").persist()


@pytest.fixture(scope="module")
def fitted(ratings):
    """Each kind once, when it is first asked for."""
    models = {}

    def model(kind):
        if kind not in models:
            rating = "stars" if "implicit" not in declaration(kind).feedback else None
            models[kind] = fit(
                ratings, user="who", item="what", rating=rating, timestamp="at", kind=kind, **small(kind)
            )
        return models[kind]

    return model


def listed(best):
    return {(row.who, row.what): row.score for row in best.collect()}


def test_kinds_of_others_are_among_them():
    assert {"trending", "inner", "nonlinear"} <= set(kinds())
    assert declaration("trending") is own_kinds.TRENDING
    with pytest.raises(ConfigError, match="there is no model of kind 'os.path'"):
        declaration("os.path")


@pytest.mark.parametrize("kind", OF_FRAMES)
def test_a_kind_ranks_as_it_scores_and_is_the_same_when_it_is_read_again(spark, ratings, fitted, kind, tmp_path):
    model = fitted(kind)
    for side, rows in (("user", model.model.users), ("item", model.model.items)):
        ids = model.dataset.users if side == "user" else model.dataset.items
        assert sorted(rows.select(side).collect()) == sorted(ids.select(side).collect())
    scores = listed(model.recommend(k=12, exclude_seen=False))
    assert Counter(who for who, _ in scores) == {f"u{u}": 12 for u in range(30)}
    pairs = spark.createDataFrame([*scores, ("nobody", "i1"), ("u1", "nothing")], "who string, what string")
    predicted = listed(model.predict(pairs))
    assert predicted.pop(("nobody", "i1")) is None
    assert predicted.pop(("u1", "nothing")) is None
    assert predicted == pytest.approx(scores, rel=1e-4, abs=1e-5)
    unseen = listed(model.recommend(k=3, users=[*(f"u{u}" for u in range(30)), "nobody"]))
    assert Counter(who for who, _ in unseen) == {f"u{u}": 3 for u in range(30)}
    assert not unseen.keys() & {(row.who, row.what) for row in ratings.collect()}
    model.save(str(tmp_path / "model"))
    read = Recommender.load(str(tmp_path / "model"), spark)
    assert read.model.settings == model.model.settings
    assert listed(read.recommend(k=3)) == pytest.approx(unseen, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("kind", [kind for kind in OF_FRAMES if declaration(kind).fit is not None])
def test_a_fit_on_spark_and_one_in_place_are_the_same_to_the_bit(spark, ratings, fitted, kind):
    in_place = fitted(kind)
    spark.conf.set(SETTING, "never")
    try:
        rating = "stars" if "implicit" not in declaration(kind).feedback else None
        there = fit(ratings, user="who", item="what", rating=rating, timestamp="at", kind=kind, **small(kind))
        best = listed(there.recommend(k=12, exclude_seen=False))
        unseen = listed(there.recommend(k=3))
    finally:
        spark.conf.unset(SETTING)
    assert {in_place.model.facts.get("carried_out"), there.model.facts.get("carried_out")} in (
        {"in place", "on Spark"},
        {None},
    )
    for here, other in ((in_place.model.users, there.model.users), (in_place.model.items, there.model.items)):
        assert sorted(map(repr, here.collect())) == sorted(map(repr, other.collect()))
    assert listed(in_place.recommend(k=12, exclude_seen=False)) == best
    assert listed(in_place.recommend(k=3)) == unseen


def by_user(best):
    """(item, score) of each user, best first."""
    found = {}
    for row in best.orderBy("who", "rank").collect():
        found.setdefault(row.who, []).append((row.what, row.score))
    return found


def same_lists(answer, expected):
    """Of the same scores, and in the same order but where scores are the same within what BLAS rounds."""
    scores = dict(expected)
    assert sorted(answer.items) == sorted(scores)
    assert answer.scores.tolist() == pytest.approx([score for _, score in expected], rel=1e-5, abs=1e-5)
    assert [scores[each] for each in answer.items] == pytest.approx(answer.scores.tolist(), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("kind", OF_FRAMES)
def test_an_exported_kind_answers_as_it_does_on_spark(spark, ratings, fitted, kind, tmp_path):
    model = fitted(kind)
    model.export(str(tmp_path / "out"))
    exported = ExportedModel.load(str(tmp_path / "out"))
    users = [f"u{u}" for u in range(30)]
    expected = by_user(model.recommend(k=12, exclude_seen=False))
    for user, answer in zip(users, exported.recommend(users, k=12, seen=True), strict=True):
        assert answer.by == "model"
        same_lists(answer, expected[user])
    (popular,) = exported.recommend(["nobody"], k=3)
    counts = Counter(row.what for row in ratings.collect())
    assert popular.by == "popularity"
    assert popular.scores.tolist() == sorted(counts.values(), reverse=True)[:3]
    values = [[4.0, 1.0, 5.0], [2.0]] if model.rating else None
    told = [["i3", "i9", "i1"], ["i7", "nothing"]]
    if declaration(kind).exported is None and model.model.encoder is None and not model.model.sees_histories:
        with pytest.raises(
            InputError, match=f"histories: a {kind} knows the users that it was fitted to and no others"
        ):
            exported.recommend(histories=told)
        return
    rows = [
        (f"new{n}", what, values[n][at] if values else 1.0, f"2024-02-{at + 1:02} 00:00:00")
        for n, history in enumerate(told)
        for at, what in enumerate(history)
        if what != "nothing"
    ]
    if values:
        values[1].append(3.0)
        with pytest.raises(InputError, match="values: the model was fitted to ratings"):
            exported.recommend(histories=told)
    history = spark.createDataFrame(rows, "who string, what string, stars double, at string")
    expected = by_user(model.recommend(k=12, history=history))
    for n, answer in enumerate(exported.recommend(histories=told, values=values, k=12)):
        assert answer.by in ("history", "folded in")
        same_lists(answer, expected[f"new{n}"])


@pytest.mark.parametrize(
    ("rating", "settings"),
    [("stars", {}), ("stars", {"unobserved_weight": 0.2}), (None, {"nonnegative": True, "solver": "cholesky"})],
    ids=["biases", "ratings", "nonnegative"],
)
def test_als_folds_a_history_in_without_spark_as_with_it(spark, ratings, tmp_path, rating, settings):
    model = fit(ratings, user="who", item="what", rating=rating, kind="als", rank=3, iterations=2, **settings)
    model.export(str(tmp_path / "out"))
    rows = [("new", "i3", 4.0), ("new", "i9", 1.0), ("new", "i1", 5.0), ("new", "i3", 2.0)]
    expected = by_user(
        model.recommend(k=12, history=spark.createDataFrame(rows, "who string, what string, stars double"))
    )
    told = {"histories": [[what for _, what, _ in rows]]}
    if rating:
        told["values"] = [[stars for *_, stars in rows]]
    (answer,) = ExportedModel.load(str(tmp_path / "out")).recommend(**told, k=12)
    same_lists(answer, expected["new"])


def test_who_is_encoded_anew_from_what_the_fit_knows_has_the_row_of_the_fit(ratings, fitted, spark, tmp_path):
    model = fitted("linear_autoencoder")
    model.save(str(tmp_path / "once"))
    Recommender.load(str(tmp_path / "once"), spark).save(str(tmp_path / "twice"))
    known = ratings.where("who IN ('u3', 'u8')").select("who", "what", "at")
    expected = listed(model.recommend(k=4, users=["u3", "u8"]))
    for each in (model, Recommender.load(str(tmp_path / "twice"), spark)):
        assert listed(each.recommend(k=4, history=known)) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    stranger = known.where("who = 'u3'").withColumn("who", F.lit("new"))
    new = {what: score for (_, what), score in listed(model.recommend(k=4, history=stranger)).items()}
    of_u3 = {what: score for (who, what), score in expected.items() if who == "u3"}
    assert new == pytest.approx(of_u3, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", ["fm", "mf"])
def test_whom_a_model_was_not_fitted_to_keeps_a_row_and_is_not_answered_by_it(fitted, kind):
    model = fitted(kind)
    count = F.when(F.col("user") == 0, 0).otherwise(F.col("train_count"))
    dataset = replace(model.dataset, users=model.dataset.users.withColumn("train_count", count))
    everyone = dataset.users.select("user")
    bound = bind(model.model, dataset, everyone, dataset.train)
    assert {row.user for row in everyone.collect()} - {row.user for row in bound.users.collect()} == {0}
    assert sorted(bound.model.users.select("user").collect()) == sorted(everyone.collect())


def test_what_a_kind_cannot_learn_from_a_frame_is_said(ratings):
    with pytest.raises(ConfigError, match="linear has no attributes to work with"):
        fit(ratings, user="who", item="what", rating="stars", kind="linear")
    with pytest.raises(ConfigError, match="a sasrec sees the order of events: pass timestamp="):
        fit(ratings, user="who", item="what", kind="sasrec")


@pytest.mark.parametrize("kind", ["trending", "inner"])
def test_a_kind_of_others_goes_through_the_stages(spark, prepared_lake, kind):
    lake: Lake = prepared_lake
    raw = {"lake": lake.root, "dataset": "small", "model": {"kind": kind, **small(kind)}}
    run = train(validate(TrainSettings, raw, "test"), lake)
    assert run.manifest["model"]["settings"]["kind"] == kind
    searched = {**raw, "space": {"days": [1.0, 30.0]} if kind == "trending" else {"dim": [2, 4]}}
    tuned = tune(validate(TuneSettings, searched, "test"), lake)
    assert tuned.manifest["trials"] == 2
    alone = tune(validate(TuneSettings, {**raw, "space": {}}, "test"), lake)
    scores = lake.table("trials").where(F.col("run").isin([tuned.id, alone.id])).collect()
    assert len({row.value for row in scores}) >= 2


@pytest.mark.horovod
@pytest.mark.parametrize("kind", ["inner", "lightgcn", "linear_autoencoder"])
def test_two_processes_of_horovod_train_what_one_does(spark, prepared_lake, kind):
    """A kind of others, one whose rows come of a graph that lies on both, and one of whole rows."""
    lake: Lake = prepared_lake

    def rows(processes):
        training = {**TRAINING, "processes": processes, "shards": {"of_group": 2}}
        more = {"dropout": 0.0} if kind == "linear_autoencoder" else {}
        model = {"kind": kind, "dim": 4, "training": training, **more}
        raw = {"lake": lake.root, "dataset": "small", "name": f"{kind}-{processes}", "model": model}
        run = train(validate(TrainSettings, raw, "test"), lake)
        items = spark.read.parquet(f"{run.path}/items").orderBy("item").collect()
        return [value for row in items for value in row.value]

    assert rows(2) == pytest.approx(rows(1), rel=1e-4, abs=1e-5)
