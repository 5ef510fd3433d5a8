"""Tasks on blocks, carried out over Arrow tables alone: what they return does not depend on who runs them."""

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sparkrec.spark.arrow.blocks import PackBlocks
from sparkrec.spark.retrieval.block_tasks import MODEL_ARRAYS, MergeResults, RankItems, ScoreBlocks, ScorePairs
from sparkrec.spark.retrieval.user_pieces import AssembleBlocks, CutLists, CutRows

SIZE = 5
KEYS = np.array([3, 8])


def run(task, *tables):
    """The rows of all tables to one call of a task that has been pickled, as it would be on its way to a worker."""
    task = pickle.loads(pickle.dumps(task))
    batches = [batch for table in tables for batch in table.to_batches(max_chunksize=7)]
    return pa.Table.from_batches(list(task(iter(batches))), task.schema)


def groups(task, key, table):
    parts = [task(table.filter(pc.equal(table[key], value))) for value in table[key].unique()]
    return pa.concat_tables(parts).cast(task.schema)


def pairs(left, right):
    """Every row of one with every row of the other."""
    at = np.indices((len(left), len(right))).reshape(2, -1)
    left, right = left.take(at[0]), right.take(at[1])
    return pa.table([*left.columns, *right.columns], [*left.column_names, *right.column_names])


def model_rows(key, ids, matrix):
    columns = {key: ids, "index": [None] * len(ids), "value": list(matrix)}
    types = {key: pa.int64(), "index": pa.list_(pa.int32()), "value": pa.list_(pa.float32())}
    return pa.table({name: pa.array(column, types[name]) for name, column in columns.items()})


class World:
    """40 users and 30 items whose scores tie often; each user has some items to exclude."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.users, self.items = rng.choice(500, 40, replace=False), np.sort(rng.choice(10**10, 30, replace=False))
        x, w = (rng.integers(-2, 3, (n, SIZE)).astype(np.float32) for n in (40, 30))
        self.scores = x @ w.T
        self.user_rows, self.item_rows = model_rows("user", self.users, x), model_rows("item", self.items, w)
        self.excluded = rng.random((40, 30)) < 0.2

    def list_of(self, mask):
        at = np.argwhere(mask)
        return pa.table({"user": self.users[at[:, 0]], "item": self.items[at[:, 1]]})


@pytest.fixture(scope="module")
def world():
    return World()


def carried_out(task, world, name, table, item_rows, held_bytes=1 << 20):
    pieces = [run(CutRows(KEYS), world.user_rows), run(CutLists(name, KEYS), table)]
    of_users = groups(AssembleBlocks(task.user_arrays, 9, 1 << 20), "partition", pa.concat_tables(pieces))
    of_items = run(PackBlocks("item", MODEL_ARRAYS, item_rows, 1 << 20), world.item_rows)
    scoring = ScoreBlocks(task, SIZE, "dense", "dense", None, 1 << 16, held_bytes, len(of_items) == 1)
    scored = run(scoring, pairs(of_users, of_items))
    return scored if scoring.all_items else groups(MergeResults(task), "block", scored)


@pytest.mark.parametrize("item_rows", [100, 7])
@pytest.mark.parametrize("held_bytes", [1 << 20, 1])
def test_the_best_items_are_those_that_sorting_finds(world, item_rows, held_bytes):
    result = carried_out(RankItems(4), world, "exclude", world.list_of(world.excluded), item_rows, held_bytes)
    lists = dict(zip(result["user"].to_pylist(), result["items"].to_pylist(), strict=True))
    scores = np.where(world.excluded, -np.inf, world.scores)
    best = world.items[np.argsort(-scores, axis=1, kind="stable")[:, :4]]
    assert lists == dict(zip(world.users.tolist(), best.tolist(), strict=True))


def test_pairs_have_the_score_of_the_model_and_unknown_items_none(world):
    table = world.list_of(world.excluded)
    table = pa.concat_tables([table, table, pa.table({"user": world.users[:1], "item": [-5]})])  # a pair may repeat
    result = carried_out(ScorePairs(), world, "pair", table, 7)
    found = {
        (row["user"], item): score
        for row in result.to_pylist()
        for item, score in zip(row["items"], row["scores"], strict=True)
    }
    expected = {
        (int(world.users[u]), int(world.items[i])): float(world.scores[u, i]) for u, i in np.argwhere(world.excluded)
    }
    assert found == {**expected, (int(world.users[0]), -5): None}
