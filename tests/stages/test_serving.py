"""New users from a log to recommendations."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkrec import storage
from sparkrec.config import (
    EvaluateSettings,
    IngestSettings,
    PrepareSettings,
    RecommendSettings,
    TrainSettings,
    declaration,
)
from sparkrec.configfile import validate
from sparkrec.spark.platform.lake import Lake
from sparkrec.stages.evaluate import evaluate
from sparkrec.stages.ingest import ingest
from sparkrec.stages.prepare import prepare
from sparkrec.stages.recommend import recommend
from sparkrec.stages.train import train

pytestmark = pytest.mark.spark

ITEMS, SESSIONS, NEW = 12, 60, 20
"""Item i is of group i % 2. A session goes on within a group, and comes back to where it was."""


def session(rng):
    first = int(rng.integers(ITEMS))
    return [(first + 2 * step) % ITEMS for step in range(4)] + [first]


@pytest.fixture(scope="module")
def shop(spark, tmp_path_factory):
    """A lake with sessions to train on, prefixes of other sessions as validation, and what came next as test."""
    folder = tmp_path_factory.mktemp("sessions")
    lake, rng = Lake(spark, f"{folder}/lake"), np.random.default_rng(0)
    log = {"sessions": [], "prefixes": [], "next": []}
    for user in range(SESSIONS):
        log["sessions"] += [(f"s{user}", item, at) for at, item in enumerate(session(rng))]
    for user in range(NEW):
        items = session(rng)
        log["prefixes"] += [(f"n{user}", item, at) for at, item in enumerate(items[:4])]
        log["next"].append((f"n{user}", items[4], 4))
    for table, rows in log.items():
        take(lake, folder, table, rows)
    split = {"kind": "given", "test": "next", "validation_table": "prefixes"}
    settings = {"dataset": "shop", "interactions": "sessions", "dedup": "none", "split": split, "sequences": {}}
    prepare(validate(PrepareSettings, {"lake": lake.root, **settings}, "test"), lake)
    return lake, folder, log


def take(lake, folder, table, rows, name=None):
    users, items, times = zip(*rows, strict=True)
    path = f"{folder}/{name or table}.parquet"
    pq.write_table(pa.table({"user": users, "item": items, "at": times}), path)
    source = {"path": path, "format": "parquet"}
    settings = {"source": source, "columns": {"user": "user", "item": "item", "timestamp": "at"}, "table": table}
    ingest(validate(IngestSettings, {"lake": lake.root, **settings}, "test"), lake)


def fitted(lake, **model):
    return train(validate(TrainSettings, {"lake": lake.root, "dataset": "shop", "model": model}, "test"), lake)


def evaluated(lake, run, **settings):
    given = {"lake": lake.root, "model": run.reference, "cutoffs": [2, 6], "segments": 1, **settings}
    return evaluate(validate(EvaluateSettings, given, "test"), lake)


def recommended(lake, run, **settings):
    given = {"lake": lake.root, "model": run.reference, "k": 2, **settings}
    done = recommend(validate(RecommendSettings, given, "test"), lake)
    lists = {}
    for row in lake.table("recommendations").where(f"run = '{done.id}'").orderBy("rank").collect():
        lists.setdefault(row.user_id, []).append(row.item_id)
        assert not row.fallback or row.user_id in lists
    return done.manifest["answered_by"], lists


MODELS = {
    "markov": ({}, "history"),
    "itemknn": ({"shrinkage": 0.0}, "history"),
    "ease": ({"regularization": 5.0}, "history"),
    "userknn": ({}, "history"),
    "linear_autoencoder": ({"dim": 4, "training": {"epochs": 40, "batch": 16, "threads": 1}}, "history"),
    "als": ({"rank": 4, "unobserved_weight": 0.1, "user_blocks": 1, "item_blocks": 1}, "folded in"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_new_sessions_are_answered_from_what_they_did(shop, kind):
    lake, _, log = shop
    settings, by = MODELS[kind]
    if declaration(kind).fit is None:
        pytest.importorskip("torch")
    run = fitted(lake, kind=kind, **settings)
    answered_by, lists = recommended(lake, run)
    assert answered_by == {"model": SESSIONS, "history": 0, "folded in": 0, "popularity": 0, by: NEW}
    group = {user: item % 2 for user, item, _ in log["prefixes"]}
    own_group = [item % 2 == group[user] for user, items in lists.items() if user in group for item in items]
    assert len(own_group) == 2 * NEW
    assert all(own_group) or kind == "markov"  # which knows no more than what came right after the last event
    found = evaluated(lake, run, protocol={"kind": "full", "exclude_seen": False}).manifest
    assert found["metrics"]["recall@6"] == 1.0  # of its own group first
    assert found["unrankable"] == {"pairs": NEW, "no_list": 0, "unknown": 0, "seen": 0}


def test_a_model_that_has_trained_rows_alone_gives_them_what_is_popular(shop):
    lake, _, _ = shop
    answered_by, _ = recommended(lake, fitted(lake, kind="popularity"))
    assert answered_by == {"model": SESSIONS, "history": 0, "folded in": 0, "popularity": NEW}


def test_what_people_come_back_to_is_found_where_it_may_be_ranked(shop, caplog):
    lake, _, _ = shop
    run = fitted(lake, kind="markov")
    left_out = evaluated(lake, run)
    assert left_out.manifest["metrics"]["recall@6"] == 0.0
    expected = {"pairs": NEW, "no_list": 0, "unknown": 0, "seen": NEW}
    assert left_out.manifest["unrankable"] == expected
    assert storage.read_json(f"{left_out.path}/metrics.json")["unrankable"] == expected
    assert (
        f"{NEW} of {NEW} held-out items cannot be ranked and are misses: {NEW} that the user had before" in caplog.text
    )
    ranked = evaluated(lake, run, protocol={"kind": "full", "exclude_seen": False})
    assert ranked.id != left_out.id
    assert ranked.manifest["metrics"]["recall@2"] > 0.8  # on within the group, or back to where it began


@pytest.mark.parametrize("kind", ["als", "itemknn"])
def test_fresh_events_move_lists_and_bring_new_users(shop, kind):
    lake, folder, log = shop
    run = fitted(lake, kind=kind, **MODELS[kind][0])
    of_s0 = {item % 2 for user, item, _ in log["sessions"] if user == "s0"}
    other = 1 - of_s0.pop()
    _, lists = recommended(lake, run)
    assert "new" not in lists
    later = [("new", 0, 100), ("new", 2, 101), ("new", 999, 102)]  # 999 is not in the dataset
    later += [("s0", (2 * step + other) % ITEMS, 100 + step) for step in range(4) for _ in range(3)]
    take(lake, folder, "sessions", later, f"later-{kind}")
    answered_by, lists = recommended(lake, run, fresh=True)
    by = MODELS[kind][1]
    assert answered_by == {"model": 0, "history": 0, "folded in": 0, "popularity": NEW, by: SESSIONS + 1}
    assert {item % 2 for item in lists["new"]} == {0}
    assert lists["s0"][0] % 2 == other
    unseen = [item for item in range(0, ITEMS, 2) if item not in (0, 2)]
    assert set(lists["new"]) <= set(unseen)
