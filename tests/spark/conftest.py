"""Small datasets without a lake, and the scores of a model as a dense matrix."""

import numpy as np
import pytest

from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.platform.few import SETTING


@pytest.fixture(params=["never", "always"], ids=["on Spark", "in place"])
def everywhere(spark, request):
    """Each test twice: its plans are carried out on Spark, and in place."""
    spark.conf.set(SETTING, request.param)
    yield request.param
    spark.conf.unset(SETTING)


@pytest.fixture(scope="session")
def dataset_of(spark):
    """Dataset of (user, item, value) triples. Raw ids are the integers with a letter: u7, i3."""

    def make(triples, n_users, n_items, explicit=False, partitions=2, id_type="string"):
        schema = "user long, item long, value float, confidence float, timestamp timestamp"
        rows = [(int(u), int(i), float(value), 1.0, None) for u, i, value in triples]
        train = spark.createDataFrame(rows, schema).repartition(partitions)

        def ids(side, n):
            raw = [f"{side[0]}{each}" if id_type == "string" else each for each in range(n)]
            counts = np.bincount([row[0 if side == "user" else 1] for row in rows], minlength=n)
            table = [(each, raw[each], int(counts[each])) for each in range(n)]
            return spark.createDataFrame(table, f"{side} long, {side}_id {id_type}, train_count long")

        return Dataset(
            reference="planted@000000000000",
            folder="none",
            manifest={"settings": {"feedback": {"kind": "explicit" if explicit else "implicit"}}},
            train=train,
            validation=train.limit(0),
            test=train.limit(0),
            users=ids("user", n_users),
            items=ids("item", n_items),
        )

    return make


def _matrix(rows, key, layout, size):
    """(n, size) of the rows of a model side whose ids are 0 .. n - 1, once they are in the form that was
    agreed."""
    rows = sorted(rows, key=lambda row: row[key])
    assert [row[key] for row in rows] == list(range(len(rows)))
    dense = np.zeros((len(rows), size))
    for at, row in enumerate(rows):
        if layout == "dense":
            assert row["index"] is None
            assert len(row["value"]) == size
            dense[at] = row["value"]
        else:
            assert row["index"] == sorted(set(row["index"]))
            assert len(row["index"]) == len(row["value"])
            dense[at, row["index"]] = row["value"]
    return dense


@pytest.fixture(scope="session")
def scores_of():
    """(n_users, n_items) of a model; its users and items have a row each."""

    def scores(model):
        expected = [("index", "array<int>"), ("value", "array<float>")]
        assert model.users.dtypes == [("user", "bigint"), *expected]
        assert model.items.dtypes == [("item", "bigint"), *expected]
        users = _matrix(model.users.collect(), "user", model.user_storage, model.size)
        items = _matrix(model.items.collect(), "item", model.item_storage, model.size)
        return users @ items.T

    return scores


@pytest.fixture(scope="session")
def two_tastes():
    """Triples (user, item, 1.0): users 0..19 like items 0..9, users 20..39 items 10..19; each has about half
    of them. User 40 and item 20 have nothing."""
    rng = np.random.default_rng(0)
    likes = rng.random((40, 10)) < 0.5
    likes[np.arange(40), np.arange(40) % 10] = True
    return [(u, i + 10 * (u // 20), 1.0) for u, i in zip(*np.nonzero(likes), strict=True)]
