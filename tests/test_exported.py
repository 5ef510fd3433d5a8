"""A folder that answers without Spark: what it says, what it refuses, and that it needs no more than it says."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from sparkrec import ExportedModel
from sparkrec.errors import InputError
from sparkrec.exported import files
from sparkrec.exported.histories import FoldedIn, write_histories
from sparkrec.exported.ids import write_ids
from sparkrec.exported.pyfunc import _load_pyfunc

USERS, ITEMS, RANK = 40, 90, 5


def write_model(path, texts=True, overwrite=False, kill=False, scale=1.0):
    """Random vectors, three seen items a user, and the last two users without a row. Returns the scores."""
    rng = np.random.default_rng(0)
    x, y = (scale * rng.normal(size=(n, RANK)).astype(np.float32) for n in (USERS, ITEMS))
    by = np.array([0] * (USERS - 2) + [3] * 2, np.int8)
    seen = np.stack([np.sort(rng.choice(ITEMS, 3, replace=False)) for _ in range(USERS)])
    facts = {"model": "shop-als@0123456789ab", "kind": "als", "explicit": False, "ids": {}}
    with files.writing(str(path), facts, overwrite) as out:
        for side, n in (("user", USERS), ("item", ITEMS)):
            # in another order than the places, and not of one length
            ids = [f"{side}{7 * at % n}é" for at in range(n)] if texts else 7 * np.arange(n) % n
            facts["ids"][side] = write_ids(out, side, ids)
        out.mapped("user_rows", x.shape, np.float32)[:] = x
        out.mapped("item_rows", (ITEMS + -ITEMS % 64, RANK), np.float32)[:ITEMS] = y
        out.array("user_by", by)
        out.array("item_fitted", np.arange(ITEMS) > 0)
        out.array("item_popularity", np.arange(ITEMS, dtype=np.float32) // 2)
        out.array("seen_start", 3 * np.arange(USERS + 1))
        out.array("seen_items", seen.ravel().astype(np.int32))
        gram = 0.1 * y.T.astype(np.float64) @ y
        fold = FoldedIn(RANK, 0.1, 0.2, 3.0, 1.0, False, None, gram, np.ones(ITEMS))
        facts["histories"] = write_histories(out, fold)
        if kill:
            raise KeyboardInterrupt
    return x @ y.T, seen


def best(scores, seen, k):
    """Places of the best, those in `seen` left out."""
    return [each for each in np.argsort(-scores, kind="stable") if each not in seen][:k]


@pytest.mark.parametrize("texts", [True, False])
def test_users_get_their_best_items_and_strangers_what_is_popular(tmp_path, texts):
    scores, seen = write_model(tmp_path, texts)
    model = ExportedModel.load(str(tmp_path))
    model.check()
    users = [model.users[at] for at in range(USERS)]
    assert model.users.places(users).tolist() == list(range(USERS))
    for at, answer in enumerate(model.recommend(users[:-2], k=7)):
        places = best(scores[at], seen[at], 7)
        assert answer.items == [model.items[place] for place in places]
        np.testing.assert_allclose(answer.scores, scores[at, places], rtol=1e-5, atol=1e-6)
        assert answer.by == "model"
    (everything,) = model.recommend(users[:1], k=1000, seen=True)
    assert len(everything.items) == ITEMS
    stranger = "nobody" if texts else 10**6
    known, unknown = model.recommend([users[-1], stranger], k=4)
    assert model.users.places([stranger, users[3], "" if texts else 2**80]).tolist() == [-1, 3, -1]
    popular = np.arange(ITEMS) // 2
    assert known.items == [model.items[at] for at in best(popular, seen[-1], 4)]
    assert unknown.items == [model.items[at] for at in best(popular, [], 4)]
    assert known.by == unknown.by == "popularity"


def test_a_history_is_folded_in_once_for_each_item_that_was_fitted(tmp_path):
    write_model(tmp_path)
    model = ExportedModel.load(str(tmp_path))
    items = [model.items[at] for at in (4, 30, 8)]
    first, again = model.recommend(histories=[items, [*items[::-1], items[0], "unheard of", model.items[0]]], k=5)
    assert first.by == "folded in"
    assert not {*first.items} & {*items}
    assert [each for each in again.items if each != model.items[0]] == [*first.items][: len(again.items)]
    assert model.recommend(histories=[[], ["unheard of"], [model.items[0]]], k=1)[2].by == "popularity"
    weighed, plain = model.recommend(histories=[items] * 2, values=[[9.0, 1.0, 1.0], [1.0] * 3], seen=True)
    assert plain.scores.tolist() != weighed.scores.tolist()


def test_what_cannot_be_answered_is_said(tmp_path):
    write_model(tmp_path / "texts")
    write_model(tmp_path / "numbers", texts=False)
    texts, numbers = ExportedModel.load(str(tmp_path / "texts")), ExportedModel.load(str(tmp_path / "numbers"))
    for ask, message in (
        (lambda: texts.recommend([17]), "user: found 17, expected a text, as the ids of the log are"),
        (lambda: numbers.recommend(["17"]), "user: found '17', expected an integer"),
        (lambda: texts.recommend("user1é"), "users: found the text 'user1é', expected a list of ids"),
        (lambda: texts.recommend(), "expected users or histories, one of the two"),
        (lambda: texts.recommend(["user1é"], k=0), "k: found 0, expected at least 1"),
        (lambda: texts.recommend(histories=["item1é"]), "found the text 'item1é', expected lists of item ids"),
        (lambda: texts.recommend(histories=[["item1é"]], values=[[1.0, 2.0]]), "expected 1 finite numbers"),
        (lambda: texts.recommend(histories=[["item1é"]], values=[[float("nan")]]), "expected 1 finite numbers"),
        (lambda: ExportedModel.load(str(tmp_path)), "has no manifest.json of an exported model"),
        (lambda: ExportedModel.load("s3://bucket/model"), "found a URI, expected a local folder"),
    ):
        with pytest.raises(InputError, match=message):
            ask()


def test_a_folder_counts_once_it_is_whole_and_takes_the_place_of_the_last(tmp_path):
    path = tmp_path / "out"
    write_model(path)
    before = ExportedModel.load(str(path))
    with pytest.raises(InputError, match="has an exported model of sparkrec, shop-als@0123456789ab: choose another"):
        write_model(path)
    with pytest.raises(KeyboardInterrupt):
        write_model(path, overwrite=True, kill=True)
    assert ExportedModel.load(str(path)).manifest == before.manifest
    expected = before.recommend(["user1é"])
    write_model(path, overwrite=True, scale=2.0)
    after = ExportedModel.load(str(path))
    assert after.manifest["digest"] != before.manifest["digest"]
    assert after.recommend(["user1é"])[0].scores == pytest.approx(4 * expected[0].scores)
    assert before.recommend(["user1é"])[0].items == expected[0].items  # whoever has it open goes on
    assert len([each for each in path.iterdir() if each.is_dir()]) == 1

    (rows,) = path.glob("*/user_rows.npy")
    data = rows.read_bytes()
    rows.write_bytes(data[:-4])
    with pytest.raises(InputError, match=r"user_rows.npy: found 924 bytes, expected 928 bytes. The copy is not whole"):
        ExportedModel.load(str(path))
    rows.write_bytes(data[:-1] + b"x")
    with pytest.raises(InputError, match="is not as it was written"):
        ExportedModel.load(str(path)).check()
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(
        InputError, match="has format 99, written by sparkrec .* reads format 1. Export the model again"
    ):
        ExportedModel.load(str(path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        write_model(tmp_path / "mine", overwrite=True)


def test_neither_spark_nor_torch_is_imported(tmp_path):
    write_model(tmp_path)
    program = (
        "import sys; hidden = ('pyspark', 'torch', 'delta', 'mlflow')\n"
        "for each in hidden: sys.modules[each] = None\n"
        "from sparkrec import ExportedModel\n"
        f"model = ExportedModel.load({str(tmp_path)!r})\n"
        "print(len(model.recommend(['user1é'])[0].items), model.recommend(histories=[['item2é']])[0].by)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (ended.stdout, ended.returncode) == ("10 folded in\n", 0), ended.stderr


def test_rows_of_a_table_are_answered_one_by_one(tmp_path):
    write_model(tmp_path)
    model = _load_pyfunc(str(tmp_path))
    users = pd.DataFrame({"user": ["user3é", "nobody"]}, index=[5, 7])
    found = model.predict(users, {"k": 3})
    assert [len(each) for each in found["items"]] == [3, 3]
    assert found["by"].tolist() == ["model", "popularity"]
    assert found.index.tolist() == [5, 7]
    told = pd.DataFrame({"items": [["item1é", "item2é"]], "values": [[1.0, 2.0]]})
    assert model.predict(told)["by"].tolist() == ["folded in"]
    with pytest.raises(InputError, match="found the columns listener; expected a column user, or a column items"):
        model.predict(pd.DataFrame({"listener": ["a"]}))


@pytest.mark.parametrize("texts", [True, False])
def test_mlflow_loads_the_folder_as_it_is(tmp_path, texts):
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed: pip install sparkrec[mlflow]")
    write_model(tmp_path, texts)
    loaded, own = mlflow.pyfunc.load_model(str(tmp_path)), ExportedModel.load(str(tmp_path))
    user, items = own.users[3], [own.items[4], own.items[8]]
    found = loaded.predict(pd.DataFrame({"user": [user]}), params={"k": 3})
    assert found["items"][0] == own.recommend([user], k=3)[0].items
    told = pd.DataFrame({"items": [items], "values": [[1.0, 2.0]]})
    assert loaded.predict(told)["items"][0] == own.recommend(histories=[items], values=[[1.0, 2.0]])[0].items
    assert loaded.predict(told[["items"]])["by"][0] == "folded in"
    assert {each.name for each in loaded.metadata.signature.outputs} == {"items", "scores", "by"}
