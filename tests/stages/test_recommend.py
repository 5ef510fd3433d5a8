"""Recommendations: who gets what, what is left out, and one commit however often it is run."""

import logging
from collections import Counter
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
from pyspark.sql import functions as F

from sparkrec import storage, tables
from sparkrec.config import IdSource, PrepareSettings, RecommendSettings, TrainSettings
from sparkrec.errors import InputError
from sparkrec.spark.algorithms.popularity import PopularitySettings
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import dense
from sparkrec.spark.platform.lake import Lake
from sparkrec.stages.recommend import inputs, recommend

pytestmark = pytest.mark.spark

N_ITEMS = 9
SEEN = {0: [0, 1], 1: [2], 2: [2, 3, 4]}
"""Train items of each user; user 3 has none."""
LATER = {0: [5], 3: [2, 6]}
"""Validation items."""
SCORES = np.random.default_rng(0).permutation(4 * N_ITEMS).reshape(4, N_ITEMS).astype(float)
POPULAR = [2, 0, 1, 3, 4, 5, 6, 7, 8]
"""By train interactions, ties by id."""


def publish_dataset(lake, id_type="string"):
    """A finished dataset, as `prepare` leaves it. Users are u0 to u3, items i0 to i8."""
    spark = lake.spark
    run = lake.open_run("prepare", "shop", PrepareSettings(lake=lake.root, dataset="shop"), {})
    counts = {
        "user": {u: len(items) for u, items in SEEN.items()},
        "item": Counter(i for s in SEEN.values() for i in s),
    }
    ids = {}
    for side, table, n in (("user", tables.USERS, 4), ("item", tables.ITEMS, N_ITEMS)):
        known = [(i, f"{side[0]}{i}" if id_type == "string" else i, counts[side].get(i, 0)) for i in range(n)]
        frame = spark.createDataFrame(known, f"{side} long, {side}_id {id_type}, train_count long")
        lake.append(table.name, frame.drop("train_count"), "ids")
        ids[f"{side}s"] = {"table": table.name, "id": lake.table_id(table.name)}
        frame.write.parquet(f"{run.path}/{side}s")
    for name, split in (("train", SEEN), ("validation", LATER), ("test", {0: [7]})):
        rows = [(u, i, 1.0, 1.0, None) for u, items in split.items() for i in items]
        spark.createDataFrame(rows, tables.SPLIT.columns).write.parquet(f"{run.path}/{name}")
    return run.publish(ids=ids)


def publish_model(lake, dataset, include_validation=False):
    """A finished model: x_u is a unit vector, so that SCORES are the item rows."""
    settings = TrainSettings(
        lake=lake.root, dataset="shop", model=PopularitySettings(), include_validation=include_validation
    )

    def rows(key, matrix):
        numbers = [(i, *map(float, row)) for i, row in enumerate(matrix)]
        frame = lake.spark.createDataFrame(numbers, f"{key} long, a double, b double, c double, d double")
        return dense(frame, key, *map(F.col, "abcd"))

    model = Model(rows("user", np.eye(4)), rows("item", SCORES.T), 4, "dense", "dense")
    return model.save(lake.open_run("train", "shop-best", settings, {"dataset": dataset.reference}))


@pytest.fixture(scope="module")
def shop(spark, tmp_path_factory):
    """A lake with a dataset and a model, and how to recommend from it."""
    root = tmp_path_factory.mktemp("shop")
    lake = Lake(spark, str(root / "lake"))
    dataset = publish_dataset(lake)
    trained = publish_model(lake, dataset)
    number = count()

    def ids(*values):
        path = root / f"list{next(number)}.csv"
        path.write_text("\n".join(["id", *map(str, values)]) + "\n")
        return IdSource(source={"path": str(path), "format": "csv"}, column="id")

    def run(**settings):
        return recommend(RecommendSettings(**{"lake": lake.root, "model": trained.reference, **settings}), lake)

    def lists(run):
        """{user id: item ids, best first} and the users who got the fallback."""
        rows = lake.table("recommendations").where(F.col("run") == run.id).orderBy("user_id", "rank").collect()
        found = {}
        for row in rows:
            found.setdefault(row.user_id, []).append(row.item_id)
            assert row.rank == len(found[row.user_id])
        return found, {row.user_id for row in rows if row.fallback}

    return SimpleNamespace(lake=lake, dataset=dataset, trained=trained, ids=ids, run=run, lists=lists)


def best(user, k, without=(), among=range(N_ITEMS)):
    order = sorted((i for i in among if i not in without), key=lambda i: -SCORES[user, i])
    return [f"i{i}" for i in order[:k]]


def popular(k, without=(), among=range(N_ITEMS)):
    return [f"i{i}" for i in POPULAR if i in among and i not in without][:k]


def test_everyone_gets_the_best_unseen_items_and_who_has_no_train_row_the_popular_ones(shop):
    run = shop.run(k=4)
    found, fallback = shop.lists(run)
    assert found == {
        "u0": best(0, 4, [0, 1, 5]),
        "u1": best(1, 4, [2]),
        "u2": best(2, 4, [2, 3, 4]),
        "u3": popular(4, [2, 6]),
    }
    assert fallback == {"u3"}
    facts = run.manifest
    assert (facts["rows"], facts["users"]) == (16, 4)
    assert facts["answered_by"] == {"model": 3, "history": 0, "folded in": 0, "popularity": 1}
    assert facts["table"] == shop.lake.path("recommendations")
    table = shop.lake.table("recommendations")
    assert [name for name, _ in table.dtypes] == [c.split()[0] for c in tables.RECOMMENDATIONS.columns.split(", ")]
    row = table.where("user_id = 'u1' AND rank = 1").collect()[0]
    assert row.score == max(s for i, s in enumerate(SCORES[1]) if i != 2)
    assert row.model == shop.trained.reference


def test_a_second_run_adds_nothing_even_if_the_first_was_killed_before_its_manifest(shop):
    first = shop.run(k=2)
    version = shop.lake.table_version("recommendations")
    assert shop.run(k=2).manifest == first.manifest
    storage.delete(first.path)
    again = shop.run(k=2)
    assert again.id == first.id
    assert again.manifest["rows"] == 8
    assert shop.lake.table_version("recommendations") == version


def test_given_users_are_all_that_is_served_and_strangers_get_what_is_popular(shop):
    found, fallback = shop.lists(shop.run(k=3, users=shop.ids("u1", "nobody", "u3", "u1", "someone")))
    assert found == {
        "u1": best(1, 3, [2]),
        "u3": popular(3, [2, 6]),
        "nobody": popular(3),
        "someone": popular(3),
    }
    assert fallback == {"u3", "nobody", "someone"}


def test_candidates_and_deny_lists_hold_for_everyone_and_unknown_ids_are_counted(shop, caplog):
    candidates, deny = shop.ids("i2", "i3", "i5", "i6", "i8", "i77", "i78"), shop.ids("i3", "i79")
    users = shop.ids("u0", "u3", "stranger")
    with caplog.at_level(logging.WARNING):
        found, _ = shop.lists(shop.run(k=3, candidates=candidates, deny=deny, users=users))
    among = [2, 5, 6, 8]
    assert found == {
        "u0": best(0, 3, [0, 1, 5], among),
        "u3": popular(3, [2, 6], among),
        "stranger": popular(3, (), among),
    }
    assert "candidates: 2 of 7 item ids are not in" in caplog.text
    assert "deny: 1 of 2 item ids are not in" in caplog.text


def test_seen_items_may_be_asked_for(shop):
    found, _ = shop.lists(shop.run(k=N_ITEMS, exclude_seen=False))
    assert found["u0"] == best(0, N_ITEMS)
    assert found["u3"] == popular(N_ITEMS)


def test_a_model_fitted_to_validation_knows_its_users(shop):
    trained = publish_model(shop.lake, shop.dataset, include_validation=True)
    found, fallback = shop.lists(shop.run(model=trained.reference, k=2))
    assert found["u3"] == best(3, 2, [2, 6])
    assert fallback == set()


def test_a_list_with_other_ids_is_another_run_and_in_another_order_the_same(shop):
    def pinned(*values):
        settings = RecommendSettings(lake=shop.lake.root, model=shop.trained.reference, users=shop.ids(*values))
        return inputs(settings, shop.lake)

    first = pinned("u0", "u1")
    assert first["model"] == shop.trained.reference
    assert first["dataset"] == shop.dataset.reference
    assert first["users"]["rows"] == 2
    assert first == pinned("u1", "u0")
    assert first != pinned("u0", "u2")


def test_bad_requests_are_refused_and_nothing_is_written(shop):
    refused = [
        ({"k": 10}, "k is 10, but the catalogue of shop@.* has 9 items"),
        ({"candidates": shop.ids("x", "y")}, r"none of the 2 item ids of .*csv \(candidates\)"),
        ({"deny": shop.ids(*[f"i{i}" for i in range(N_ITEMS)])}, "leave no item to recommend"),
        ({"users": shop.ids()}, "holds no id in column 'id'"),
    ]
    before = shop.lake.table_version("recommendations") if shop.lake.has_table("recommendations") else None
    for settings, message in refused:
        with pytest.raises(InputError, match=message):
            shop.run(**{"k": 2, **settings})
    after = shop.lake.table_version("recommendations") if shop.lake.has_table("recommendations") else None
    assert after == before


def test_ids_of_another_type_than_the_datasets_are_refused(lake, shop):
    dataset = publish_dataset(lake, id_type="long")
    settings = {"lake": lake.root, "model": publish_model(lake, dataset).reference, "k": 1}
    with pytest.raises(InputError, match="has user id 'u1', but the ids of the dataset are bigint"):
        recommend(RecommendSettings(**settings, users=shop.ids("0", "u1")), lake)
    columns = tables.RECOMMENDATIONS.columns.replace(" id,", " string,")
    lake.append(
        "recommendations", lake.spark.createDataFrame([], columns), "of a dataset with strings", tables.RECOMMENDATIONS
    )
    with pytest.raises(InputError, match="user_id is bigint in this dataset, but string in table .*recommendations"):
        recommend(RecommendSettings(**settings), lake)
