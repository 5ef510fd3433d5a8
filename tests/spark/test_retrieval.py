"""Blocked retrieval finds what sorting the whole score matrix finds."""

import logging

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sparkrec.spark.arrow.blocks import _gather, read_lists
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.platform.before_spark_4 import from_arrow
from sparkrec.spark.retrieval.topk import Blocks, rank_counts, score_pairs, topk

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("everywhere")]

SMALL = Blocks(users=16, broadcast_users=16, items=12, cells=64 * 12, held_bytes=2000)
"""Many blocks, many tiles, and partial answers that leave a task early."""
ITEMS_STREAM = Blocks(broadcast_users=16, items=12, bytes=1000)
NOTHING_BROADCAST = Blocks(broadcast_users=16, items=12, bytes=1000, broadcast_bytes=0)


def rows(spark, key, ids, matrix, layout):
    """A model's table: the rows of a dense matrix, as they are or as their nonzeros."""
    index = [None if layout == "dense" else np.flatnonzero(row).astype(np.int32) for row in matrix]
    value = [row if layout == "dense" else row[row != 0] for row in matrix]
    table = pa.table(
        {
            key: pa.array(ids, pa.int64()),
            "index": pa.array(index, pa.list_(pa.int32())),
            "value": pa.array(value, pa.list_(pa.float32())),
        }
    )
    return from_arrow(spark, table)


class Case:
    """A random model of 53 users and 41 items whose ids have gaps; small integers, so that many scores tie."""

    def __init__(self, spark, user_storage, item_storage, seed=0):
        rng = np.random.default_rng(seed)
        self.spark = spark
        self.users = np.sort(rng.choice(1000, 53, replace=False))
        self.items = np.sort(rng.choice(10**12, 41, replace=False))
        size = 7
        x = rng.integers(-2, 3, (53, size)).astype(np.float32)
        w = rng.integers(-2, 3, (41, size)).astype(np.float32)
        order = rng.permutation(41)
        self.scores = x @ w.T
        self.model = Model(
            rows(spark, "user", self.users, x, user_storage),
            rows(spark, "item", self.items[order], w[order], item_storage),
            size,
            user_storage,
            item_storage,
        )
        picked = rng.random((53, 41)) < 0.3
        picked[5] = True  # nothing is left of this user's items
        self.excluded = picked

    def pairs(self, mask, *more):
        at = [(int(self.users[u]), int(self.items[i])) for u, i in np.argwhere(mask)]
        return self.spark.createDataFrame([*at, *more], "user long, item long")

    def best(self, k, excluded=None, allowed=None):
        """user, rank, item, score by sorting."""
        found = []
        for u, user in enumerate(self.users):
            left = [
                (-score, item)
                for i, (score, item) in enumerate(zip(self.scores[u], self.items, strict=True))
                if (excluded is None or not excluded[u, i]) and (allowed is None or allowed[i])
            ]
            found += [(user, r, item, -s) for r, (s, item) in enumerate(sorted(left)[:k], start=1)]
        return pd.DataFrame(found, columns=["user", "rank", "item", "score"])


LAYOUTS = [("dense", "dense"), ("sparse", "dense"), ("sparse", "sparse")]


@pytest.fixture(scope="module", params=LAYOUTS, ids="-".join)
def case(request, spark):
    return Case(spark, *request.param)


@pytest.fixture(scope="module")
def dense(spark):
    return Case(spark, "dense", "dense", seed=1)


def assert_same(frame, expected):
    assert frame.dtypes == [("user", "bigint"), ("rank", "int"), ("item", "bigint"), ("score", "float")]
    found = frame.toPandas().sort_values(["user", "rank"], ignore_index=True)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


@pytest.mark.sparks
@pytest.mark.parametrize("blocks", [Blocks(), SMALL], ids=["one block", "many blocks"])
def test_topk_is_what_sorting_finds_however_many_blocks_there_are(case, blocks):
    found = topk(case.model, 9, exclude=case.pairs(case.excluded), blocks=blocks)
    assert_same(found, case.best(9, case.excluded))


@pytest.mark.parametrize("blocks", [ITEMS_STREAM, NOTHING_BROADCAST], ids=["users broadcast", "nothing broadcast"])
def test_which_side_is_broadcast_changes_nothing(dense, blocks):
    found = topk(dense.model, 9, exclude=dense.pairs(dense.excluded), blocks=blocks)
    assert_same(found, dense.best(9, dense.excluded))


def test_only_given_users_and_items_are_ranked_and_strangers_have_no_row(dense):
    users = dense.spark.createDataFrame([(int(u),) for u in dense.users[::7]] + [(5555,)] * 2, "user long")
    allowed = np.arange(41) % 4 == 0
    items = dense.spark.createDataFrame([(int(i),) for i in dense.items[allowed]] + [(-3,)], "item long")
    expected = dense.best(5, allowed=allowed)
    expected = expected[expected["user"].isin(dense.users[::7])].reset_index(drop=True)
    assert_same(topk(dense.model, 5, users, items=items), expected)


def test_more_than_the_catalogue_holds_is_all_of_it_and_a_warning(dense, caplog):
    with caplog.at_level(logging.WARNING):
        found = topk(dense.model, 50, blocks=SMALL)
    assert_same(found, dense.best(50))
    assert "k is 50" in caplog.text
    assert "41 items" in caplog.text


def test_exclusions_may_repeat_and_name_what_the_model_does_not_know(dense):
    once = dense.pairs(dense.excluded, (int(dense.users[0]), -9), (123456, 1))
    assert_same(topk(dense.model, 3, exclude=once.unionAll(once)), dense.best(3, dense.excluded))


def test_scores_of_real_factors_do_not_depend_on_the_blocks_but_for_the_last_bit(spark):
    """OpenBLAS's kernels for AVX2 add up in an order that depends on where in a block a row is; others do not."""
    rng = np.random.default_rng(3)
    x, w = rng.normal(size=(300, 33)).astype(np.float32), rng.normal(size=(150, 33)).astype(np.float32)
    model = Model(
        rows(spark, "user", np.arange(300), x, "dense"), rows(spark, "item", np.arange(150), w, "dense"),
        33, "dense", "dense",
    )  # fmt: skip
    whole = topk(model, 10).toPandas().sort_values(["user", "rank"], ignore_index=True)
    parts = topk(model, 10, blocks=Blocks(users=70, items=31)).toPandas()
    parts = parts.sort_values(["user", "rank"], ignore_index=True)
    pd.testing.assert_frame_equal(whole, parts, check_exact=False, rtol=1e-6, atol=0)


@pytest.mark.parametrize("blocks", [Blocks(), SMALL], ids=["one block", "many blocks"])
def test_pairs_get_the_models_score_and_unknown_ones_null(case, blocks):
    known_user, known_item = int(case.users[0]), int(case.items[0])
    strangers = [(known_user, -1), (999999, known_item), (999999, -1)]
    pairs = case.pairs(case.excluded, *strangers)
    found = {(r.user, r.item): r.score for r in score_pairs(case.model, pairs, blocks).collect()}
    assert len(found) == case.excluded.sum() + 3
    for u, i in np.argwhere(case.excluded):
        assert found[case.users[u], case.items[i]] == case.scores[u, i]
    assert [found[pair] for pair in strangers] == [None] * 3


def test_a_pair_that_is_asked_twice_is_answered_twice(dense):
    pair = (int(dense.users[0]), int(dense.items[0]))
    pairs = dense.spark.createDataFrame([pair, pair], "user long, item long")
    assert [row.score for row in score_pairs(dense.model, pairs).collect()] == [dense.scores[0, 0]] * 2


@pytest.mark.parametrize("blocks", [Blocks(), SMALL], ids=["one block", "many blocks"])
def test_rank_counts_compare_a_target_with_all_that_is_neither_excluded_nor_a_target(case, blocks):
    rng = np.random.default_rng(4)
    targets = (rng.random((53, 41)) < 0.1) & ~case.excluded
    stranger = (int(case.users[2]), -7)
    found = rank_counts(case.model, case.pairs(targets, stranger), case.pairs(case.excluded), blocks).collect()
    assert len(found) == targets.sum() + 1
    others = ~case.excluded & ~targets
    for row in found:
        u = int(np.searchsorted(case.users, row.user))
        rest = case.scores[u, others[u]]
        assert row.candidates == len(rest)
        if row.item == -7:
            assert (row.greater, row.equal) == (len(rest), 0)
            continue
        score = case.scores[u, np.searchsorted(case.items, row.item)]
        assert (row.greater, row.equal) == ((rest > score).sum(), (rest == score).sum())


def test_blocks_hold_every_row_once_within_their_bounds():
    rng = np.random.default_rng(5)
    ids = rng.permutation(500)
    lists = [rng.integers(0, 9, rng.integers(0, 30)) for _ in ids]
    batches = [
        pa.RecordBatch.from_pydict({"id": ids[a : a + 70], "list": pa.array(lists[a : a + 70], pa.list_(pa.int64()))})
        for a in range(0, 500, 70)
    ]
    held = list(_gather(batches, {"list": np.int64}, max_rows=33, max_bytes=2000))
    assert max(map(len, held)) <= 33
    assert max(8 * len(block) + 8 * len(block) + block.arrays["list"].values.nbytes for block in held) <= 2000
    found = {}
    for block in held:
        assert (np.diff(block.ids) > 0).all()
        lists_ = block.arrays["list"]
        for at, id_ in enumerate(block.ids):
            found[id_] = lists_.values[lists_.start[at] : lists_.start[at + 1]].tolist()
    assert found == {id_: values.tolist() for id_, values in zip(ids, lists, strict=True)}


def test_a_row_larger_than_a_block_gets_one_of_its_own():
    batch = pa.RecordBatch.from_pydict({"id": [3, 1, 2], "list": [[1], list(range(100)), [2]]})
    held = list(_gather([batch], {"list": np.int64}, max_rows=10, max_bytes=100))
    assert [block.ids.tolist() for block in held] == [[3], [1], [2]]


def test_null_lists_read_as_empty_ones():
    lists = read_lists(pa.array([[1, 2], None, [3]], pa.list_(pa.int64())).slice(1), np.int64)
    assert lists.start.tolist() == [0, 0, 1]
    assert lists.values.tolist() == [3]
