"""What `fit` returns: predictions, similar items, new users, explanations, a folder it is kept in."""

import pytest
from pyspark.sql import functions as F

from sparkrec import Recommender, fit, storage
from sparkrec.errors import ConfigError, InputError

pytestmark = pytest.mark.spark

TRAINING = {"epochs": 3, "batch": 16, "learning_rate": 0.05, "init_scale": 0.1, "threads": 1}
KINDS = {
    "als": {"rank": 4, "unobserved_weight": 0.1, "user_blocks": 1, "item_blocks": 1},
    "itemknn": {"shrinkage": 0.0, "normalization": 0.5},
    "ease": {"regularization": 2.0},
}


@pytest.fixture(scope="module")
def plays(spark):
    """Two groups with a taste each; every user has all but one item of the own group."""
    rows = [(f"{g}{u}", f"{g}-song{i}", 10 * u + i) for g in ("a", "b") for u in range(5) for i in range(5) if u != i]
    return spark.createDataFrame(rows, "listener string, song string, at long")


@pytest.fixture(scope="module")
def fitted(plays):
    return {kind: fit(plays, user="listener", item="song", kind=kind, **settings) for kind, settings in KINDS.items()}


def lists(best):
    found = {}
    for row in best.orderBy("listener", "rank").collect():
        found.setdefault(row.listener, []).append((row.song, row.score))
    return found


def test_scores_of_pairs_are_those_of_the_lists_and_null_for_who_is_unknown(spark, fitted):
    model = fitted["als"]
    best = (
        model.recommend(k=3, exclude_seen=False).select("listener", "song", F.col("score").alias("expected")).persist()
    )
    scored = model.predict(best)
    assert scored.columns == ["listener", "song", "expected", "score"]
    rows = scored.collect()
    assert len(rows) == 30
    assert [row.score for row in rows] == pytest.approx([row.expected for row in rows], rel=1e-5)
    asked = spark.createDataFrame([("a1", "nothing"), ("nobody", "a-song1"), (None, "a-song1")], best.schema.names[:2])
    assert [row.score for row in model.predict(asked).collect()] == [None, None, None]
    with pytest.raises(InputError, match="found a column score, which is what predict adds"):
        model.predict(asked.withColumn("score", F.lit(1)))


@pytest.mark.parametrize("kind", ["als", "itemknn"])
def test_similar_items_and_users_are_those_of_the_own_group(spark, fitted, kind):
    model = fitted[kind]
    alike = model.similar_items(k=4).collect()
    assert len(alike) == 40
    assert all(row.song[0] == row.similar[0] and row.song != row.similar for row in alike)
    asked = spark.createDataFrame([("b2",), ("nobody",)], "listener string")
    users = model.similar_users(asked, k=2).collect()
    assert [(row.listener, row.rank) for row in users] == [("b2", 1), ("b2", 2)]
    assert {row.similar[0] for row in users} == {"b"}
    assert users[0].score >= users[1].score
    assert {row.song for row in model.similar_items(["a-song1"], k=1).collect()} == {"a-song1"}


@pytest.mark.parametrize("kind", ["als", "ease"])
def test_a_history_speaks_for_a_new_user_and_instead_of_what_an_old_one_did(spark, fitted, kind):
    model = fitted[kind]
    rows = [("new", f"a-song{i}") for i in (0, 1, 2)] + [("b1", "a-song0"), ("b1", "a-song1"), ("new", "unheard of")]
    history = spark.createDataFrame(rows, "listener string, song string")
    found = lists(model.recommend(k=2, history=history))
    assert {song for song, _ in found["new"]} == {"a-song3", "a-song4"}
    assert {song for song, _ in found["b1"]} <= {"a-song2", "a-song3", "a-song4"}
    both = lists(model.recommend(k=1, users=["new", "a2", "nobody"], history=history))
    assert set(both) == {"new", "a2"}
    assert both["new"][0] == found["new"][0]
    assert both["a2"] == lists(model.recommend(k=1))["a2"]


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_score_are_the_users_items_and_their_sum_is_the_score(fitted, kind):
    model = fitted[kind]
    parts = model.explain("a1", "a-song1").collect()
    assert {row.song for row in parts} == {f"a-song{i}" for i in (0, 2, 3, 4)}
    assert [row.contribution for row in parts] == sorted((row.contribution for row in parts), reverse=True)
    score = lists(model.recommend(k=1))["a1"][0]
    assert score[0] == "a-song1"
    # als: of the user's system with the items as they are, half a step ahead of the fitted row
    assert sum(row.contribution for row in parts) == pytest.approx(score[1], rel=5e-2 if kind == "als" else 1e-5)
    with pytest.raises(InputError, match="explain: user 'nobody' is not in the fit"):
        model.explain("nobody", "a-song1")


def test_what_a_kind_cannot_do_is_said_with_those_that_can(plays):
    model = fit(plays, user="listener", item="song", kind="popularity")
    with pytest.raises(InputError, match="history: a popularity knows the users .* expected als, bias, ease"):
        model.recommend(history=plays)
    with pytest.raises(InputError, match="a popularity does not say why; expected one of als, ease, fm, itemknn, lr"):
        model.explain("a1", "a-song1")
    with pytest.raises(InputError, match="a popularity knows no vectors"):
        model.similar_items()


@pytest.mark.parametrize("kind", ["als", "neumf", "fm", "sasrec"])
def test_a_loaded_model_recommends_the_same(spark, plays, tmp_path, kind):
    own = {"als": KINDS["als"], "neumf": {"dim": 4, "layers": [8, 4], "training": TRAINING}}
    own |= {"fm": {"dim": 4, "training": TRAINING}, "sasrec": {"dim": 8, "dropout": 0.0, "training": TRAINING}}
    model = fit(plays, user="listener", item="song", timestamp="at", kind=kind, **own[kind])
    path = str(tmp_path / "kept")
    model.save(path)
    loaded = Recommender.load(path)
    assert lists(loaded.recommend(k=2)) == lists(model.recommend(k=2))
    if kind == "sasrec":
        history = spark.createDataFrame([("new", "a-song1", 1), ("new", "a-song2", 2)], plays.schema)
        assert lists(loaded.recommend(k=2, history=history)) == lists(model.recommend(k=2, history=history))
    if kind == "fm":
        parts = loaded.explain("a1", "a-song1").collect()
        score = loaded.predict(plays.limit(0).unionByName(plays.where("listener = 'a1'").limit(1))).collect()
        assert len(score) == 1
        assert {(row.field, row.with_field) for row in parts} >= {("user", "item"), ("constant", None)}


def test_a_folder_is_replaced_whole_or_not_at_all(fitted, tmp_path, monkeypatch):
    path = str(tmp_path / "kept")
    fitted["als"].save(path)
    with pytest.raises(InputError, match="has a model: choose another folder, or save with overwrite=True"):
        fitted["ease"].save(path)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(storage, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            fitted["ease"].save(path, overwrite=True)
    loaded = Recommender.load(path)
    assert loaded.kind == "als"
    assert lists(loaded.recommend(k=1)) == lists(fitted["als"].recommend(k=1))
    fitted["ease"].save(path, overwrite=True)
    assert Recommender.load(path).kind == "ease"
    with pytest.raises(InputError, match="was loaded from"):
        Recommender.load(path).save(path, overwrite=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        fitted["als"].save(str(other), overwrite=True)
    assert [each.name for each in other.iterdir()] == ["notes.txt"]
    with pytest.raises(InputError, match=r"has no manifest.json of a model of sparkrec.fit"):
        Recommender.load(str(other))


def test_models_of_sequences_take_a_frame_with_times(spark):
    rows = [(f"u{u}", f"i{(u + 7 * step) % 10}", 100 - 10 * u + step) for u in range(40) for step in range(5)]
    walks = spark.createDataFrame(rows, "user string, item string, ts long")
    model = fit(walks, kind="markov", timestamp="ts")
    history = spark.createDataFrame([("x", "i1", 5), ("x", "i4", 3)], walks.schema)  # i1 came last
    assert [row.item for row in model.recommend(k=1, history=history).collect()] == ["i8"]
    with pytest.raises(ConfigError, match="a markov sees the order of events: pass timestamp="):
        fit(walks, kind="markov")
    untimed = walks.withColumn("ts", F.when(F.col("item") != "i0", F.col("ts")))
    with pytest.raises(InputError, match="ts: found 20 rows without a time"):
        fit(untimed, kind="markov", timestamp="ts")
