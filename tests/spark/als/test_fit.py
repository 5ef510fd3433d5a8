"""Blockwise ALS: right, whatever the blocks; resumable; honest about what it cannot solve."""

import os
from functools import partial
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest

from sparkrec.errors import TrainError
from sparkrec.kernels.random import normal_rows
from sparkrec.spark.algorithms.als.fit import factorize, fit_factors
from sparkrec.spark.algorithms.als.settings import AlsSettings
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.platform.partitions import partition_keys, spark_hash

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("everywhere")]


def exactly(**given):
    """Settings that leave nothing to the data."""
    left = {"regularization": 0.01, "regularization_exponent": 1.0, "unobserved_weight": 0.0, "biases": False}
    return AlsSettings(**{**left, "propensity_exponent": 0.0, **given})


def ratings_of(spark, matrix, confidence=None):
    """DataFrame of the nonzero cells of a dense matrix; ids are spread out."""
    users, items = np.nonzero(matrix)
    weights = np.ones_like(matrix) if confidence is None else confidence
    rows = [
        (int(u) * 7, int(i) * 3 + 10_000_000_000, float(matrix[u, i]), float(weights[u, i]))
        for u, i in zip(users, items, strict=True)
    ]
    return spark.createDataFrame(rows, "user long, item long, value float, confidence float")


def dense_als(matrix, confidence, settings, seed, start=None):
    """Hu et al. 2008 on dense float64 matrices, an equation a line.

    start  items to factors to start from; None, and for others: random ones
    """
    observed, w0, d = matrix != 0, settings.unobserved_weight, settings.rank
    weights = np.where(observed, confidence, w0)
    ids = np.arange(matrix.shape[1]) * 3 + 10_000_000_000
    y = settings.init_scale / np.sqrt(d) * normal_rows(seed, ids, d).astype(np.float64)
    for item, row in (start or {}).items():
        y[item] = row

    def solve(weights, targets, seen, src):
        reg = settings.regularization * (seen.sum(1) + w0 * len(src)) ** settings.regularization_exponent
        return np.stack([
            np.linalg.solve((src.T * c) @ src + r * np.eye(d), (src.T * c) @ t)
            for c, t, r in zip(weights, targets, reg, strict=True)
        ])  # fmt: skip

    for _ in range(settings.iterations):
        x = solve(weights, matrix, observed, y)
        y = solve(weights.T, matrix.T, observed.T, x)
    return x, y


def factorized(ratings, settings, **how):
    """Factors of users and items as DataFrames, and the history of `factorize`."""

    def plan(rows):
        users, items, history = factorize(rows, settings, **how)
        return users.frame(), items.frame(), history

    return carry_out("als", plan, ratings)


def users_fitted(ratings, settings, **how):
    return carry_out("als", lambda rows: fit_factors(rows, settings, **how).users.frame(), ratings)


def collected(frame):
    rows = sorted(frame.collect(), key=lambda row: row.id)
    return np.array([row.id for row in rows]), np.array([row.value for row in rows])


@pytest.fixture(scope="module")
def matrix():
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((30, 20)) < 0.3, rng.integers(1, 6, (30, 20)), 0).astype(float)
    dense[:, 0] = 3.0  # everyone's item
    dense[np.arange(20), np.arange(20)] = 2.0  # nobody and nothing is empty
    return dense


@pytest.mark.sparks
@pytest.mark.parametrize(
    "settings",
    [
        exactly(rank=4, iterations=3, regularization=0.1, user_blocks=3, item_blocks=2),
        exactly(rank=4, iterations=3, regularization=0.5, unobserved_weight=0.3, regularization_exponent=0.5),
        exactly(rank=4, iterations=2, regularization=0.2, unobserved_weight=1.0, regularization_exponent=0.0),
        pytest.param(
            exactly(rank=4, iterations=2, unobserved_weight=0.3, kernel="torch", storage_level="DISK_ONLY"),
            marks=[pytest.mark.torch, pytest.mark.skipif(not find_spec("torch"), reason="torch is not installed")],
        ),
    ],
    ids=["explicit", "ials", "hu", "torch, on disk"],
)
def test_factors_are_those_of_dense_closed_form_updates(spark, tmp_path, matrix, settings):
    confidence = 1.0 + np.random.default_rng(1).random(matrix.shape)
    users, items, history = factorized(
        ratings_of(spark, matrix, confidence.astype(np.float32)), settings, seed=3, scratch=str(tmp_path)
    )
    x, y = dense_als(matrix, confidence, settings, seed=3)
    ids, factors = collected(users)
    np.testing.assert_array_equal(ids, np.arange(30) * 7)
    np.testing.assert_allclose(factors, x, atol=1e-4)
    np.testing.assert_allclose(collected(items)[1], y, atol=1e-4)
    w0, nu = settings.unobserved_weight, settings.regularization_exponent
    seen = matrix != 0
    error = np.where(seen, confidence, w0) * (matrix - x @ y.T) ** 2
    reg_users = settings.regularization * (seen.sum(1) + w0 * 20) ** nu
    reg_items = settings.regularization * (seen.sum(0) + w0 * 30) ** nu
    loss = error.sum() + reg_users @ (x**2).sum(1) + reg_items @ (y**2).sum(1)
    assert history[-1]["loss"] == pytest.approx(loss, rel=1e-4)
    losses = [entry["loss"] for entry in history]
    assert losses == sorted(losses, reverse=True)


def test_propensities_divide_confidences_by_a_power_of_the_counts_of_items(spark, tmp_path, matrix):
    settings = exactly(rank=4, iterations=2, unobserved_weight=0.1)
    counts = (matrix != 0).sum(0)
    weights = np.where(matrix != 0, counts**-0.5, 0)
    weights /= weights.sum() / counts.sum()
    expected = users_fitted(ratings_of(spark, matrix, weights), settings, seed=0, scratch=str(tmp_path))
    weighted = settings.model_copy(update={"propensity_exponent": 0.5})
    found = users_fitted(ratings_of(spark, matrix), weighted, seed=0, scratch=str(tmp_path))
    np.testing.assert_allclose(collected(found)[1], collected(expected)[1], atol=1e-5)


def test_the_number_of_blocks_and_the_order_of_rows_change_nothing(spark, tmp_path, matrix):
    def fit(blocks, rows):
        settings = exactly(rank=4, iterations=3, unobserved_weight=0.1, user_blocks=blocks, item_blocks=blocks)
        users, items, _ = factorized(rows, settings, seed=0, scratch=str(tmp_path / str(blocks)))
        return collected(users)[1] @ collected(items)[1].T

    rows = ratings_of(spark, matrix)
    np.testing.assert_allclose(fit(5, rows.orderBy("value").repartition(4)), fit(1, rows), atol=1e-4)


def test_an_interrupted_fit_ends_where_an_uninterrupted_one_does(spark, tmp_path, matrix, monkeypatch, caplog):
    rows = ratings_of(spark, matrix)
    settings = exactly(rank=4, iterations=5, unobserved_weight=0.1, snapshot_every=2, user_blocks=2, item_blocks=3)
    users, items, history = factorized(rows, settings, seed=0, scratch=str(tmp_path / "whole"))

    from sparkrec.spark.algorithms.als import solve

    half_step, calls = solve.SideSolver.half_step, []

    def dies(*args):
        calls.append(args)
        if len(calls) == 8:  # in the middle of the fourth iteration
            raise KeyboardInterrupt
        return half_step(*args)

    monkeypatch.setattr(solve.SideSolver, "half_step", dies)
    with pytest.raises(KeyboardInterrupt):
        factorized(rows, settings, seed=0, scratch=str(tmp_path / "broken"))
    monkeypatch.setattr(solve.SideSolver, "half_step", half_step)
    caplog.set_level("INFO")
    resumed_users, resumed_items, resumed_history = factorized(rows, settings, seed=0, scratch=str(tmp_path / "broken"))
    assert "resuming after iteration 2" in caplog.text
    np.testing.assert_allclose(collected(resumed_users)[1], collected(users)[1], atol=1e-6)
    np.testing.assert_allclose(collected(resumed_items)[1], collected(items)[1], atol=1e-6)
    assert [entry["loss"] for entry in resumed_history] == pytest.approx([entry["loss"] for entry in history])


def test_a_system_without_solution_names_the_user_or_item(spark, tmp_path):
    matrix = np.array([[1.0, 0.0], [0.0, 2.0]])
    settings = exactly(rank=3, iterations=1, regularization=0.0)
    with pytest.raises(TrainError, match=r"the system of (user|item) number \d+ with 1 ratings has no finite solution"):
        factorized(ratings_of(spark, matrix), settings, seed=0, scratch=str(tmp_path))


def test_every_block_has_a_partition_of_its_own(spark):
    from pyspark.sql import functions as F

    values = np.array([0, 1, -1, 7, 2**40 + 3, -(2**62)])
    rows = spark.createDataFrame([(int(value),) for value in values], "value long")
    hashes = [row[0] for row in rows.coalesce(1).select(F.hash("value")).collect()]
    np.testing.assert_array_equal(spark_hash(values), hashes)
    for n in (1, 2, 7, 40):
        keys = partition_keys(n)
        frame = spark.createDataFrame([(key,) for key in keys], "block long").repartition(n, "block")
        assert frame.select(F.spark_partition_id()).distinct().count() == len(keys) == n


def test_an_id_with_more_ratings_than_a_block_should_have_is_summed_in_pieces(spark, tmp_path, matrix):
    """Everyone's item, and whoever else has more than ten: the factors are those of blocks that hold them whole."""
    rows = ratings_of(spark, matrix)
    for solver in ("cholesky", "cg", "ials++"):
        settings = exactly(
            rank=4, iterations=2, unobserved_weight=0.1, user_blocks=2, item_blocks=3, solver=solver, coordinates=2
        )
        whole = fit_with(rows, settings, split_above=None)
        pieces = fit_with(rows, settings, split_above=8)
        for one, two in zip(whole[:2], pieces[:2], strict=True):
            np.testing.assert_array_equal(collected(one)[0], collected(two)[0])
            np.testing.assert_allclose(collected(one)[1], collected(two)[1], atol=1e-4)
        assert [each["loss"] for each in pieces[2]] == pytest.approx([each["loss"] for each in whole[2]], rel=1e-5)


def fit_with(rows, settings, split_above):
    from sparkrec.spark.algorithms.als import fit

    lay_out = fit.lay_out
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "lay_out", lambda *args: lay_out(*args, split_above=split_above))
        return factorized(rows, settings, seed=1, scratch=None)


@pytest.mark.parametrize("name", ["spark.sql.unionOutputPartitioning", "spark.sql.adaptive.enabled"])
def test_an_optimiser_that_moves_the_layout_changes_nothing(spark, matrix, name):
    """Without either, Spark no longer sees that blocks and messages lie together (as Spark 4.0 does not)."""
    settings = exactly(rank=3, iterations=2, unobserved_weight=0.1, user_blocks=3, item_blocks=2)
    rows = ratings_of(spark, matrix)
    users, _, history = factorized(rows, settings, seed=1, scratch=None)
    before = spark.conf.get(name, "true")
    spark.conf.set(name, "false")
    try:
        again, _, changed = factorized(rows, settings, seed=1, scratch=None)
        np.testing.assert_allclose(collected(again)[1], collected(users)[1], atol=1e-5)
    finally:
        spark.conf.set(name, before)
    assert [each["loss"] for each in changed] == pytest.approx([each["loss"] for each in history])


def test_what_dies_with_an_executor_is_made_again(spark, tmp_path, matrix, monkeypatch, caplog):
    """A Python worker that ends in the middle of an iteration fails its job: here, without retries of tasks."""
    settings = exactly(rank=3, iterations=4, unobserved_weight=0.1, snapshot_every=2, user_blocks=2, item_blocks=2)
    rows = ratings_of(spark, matrix)
    users, items, history = factorized(rows, settings, seed=1, scratch=None)

    from sparkrec.spark.algorithms.als import solve

    half_step, calls = solve.SideSolver.half_step, []

    def kills(*args):
        calls.append(args)
        if len(calls) == 6:  # in the third iteration
            ends = spark.range(1).mapInArrow(lambda batches: os._exit(1), "id long")
            ends.collect()
        return half_step(*args)

    monkeypatch.setattr(solve.SideSolver, "half_step", kills)
    again_users, again_items, again = factorized(rows, settings, seed=1, scratch=str(tmp_path))
    assert "Beginning again from the last snapshot" in caplog.text
    np.testing.assert_allclose(collected(again_users)[1], collected(users)[1], atol=1e-5)
    np.testing.assert_allclose(collected(again_items)[1], collected(items)[1], atol=1e-5)
    assert [each["loss"] for each in again] == pytest.approx([each["loss"] for each in history])


def test_a_missing_or_doubled_block_is_named(spark, matrix):
    from sparkrec.spark.algorithms.als.block import Outline
    from sparkrec.spark.algorithms.als.layout import lay_out
    from sparkrec.spark.runner import SparkRows

    users, _ = lay_out(SparkRows(ratings_of(spark, matrix)), exactly(rank=3, user_blocks=2, item_blocks=2))
    outline = users.outlines.table().slice(0, 1)
    key = outline["block"][0].as_py()
    assert Outline.read(outline).key == key
    import pyarrow as pa

    with pytest.raises(RuntimeError, match=rf"als: links of block {key} came 2 times, expected once"):
        Outline.read(pa.concat_tables([outline, outline]))


def test_a_block_takes_the_factors_it_needs_once_each_in_any_order():
    import pyarrow as pa

    from sparkrec.spark.algorithms.als import block
    from sparkrec.spark.algorithms.als.plan import SPLIT

    outline = block.Outline(7, np.arange(3), np.zeros(0, np.int64), {1: 2, 4: 1, SPLIT: 1}, np.array([30]), [])
    one, four, split = np.array([[1, 2], [3, 4]]), np.array([[5, 6]]), np.array([[9, 9], [7, 8]])
    rank, solver = 2, block.kernel.Solver("cholesky")
    of_split = np.array([20, 30]), split.astype(np.float32)
    penalty = block.Penalty(0.1, 0.0, 1.0)
    step = block.HalfStep(rank, 0.0, penalty, solver, np.zeros((2, 2)), *of_split, "numba", "user")

    def receive(*messages):
        rows = [
            {"block": 7, "src_block": src, "src_factors": factors.astype(np.float32).tobytes()}
            for src, factors in messages
        ]
        schema = pa.schema([("block", pa.int64()), ("src_block", pa.int64()), ("src_factors", pa.binary())])
        return block._receive(outline, pa.Table.from_pylist(rows, schema), step)

    for messages in ([(1, one), (4, four)], [(4, four), (1, one)]):
        np.testing.assert_array_equal(receive(*messages), [[1, 2], [3, 4], [5, 6], [7, 8]])
    for messages in ([(1, one)], [(1, one[:1]), (4, four)], [(1, one), (4, one)], [(1, one), (4, four), (5, four)]):
        with pytest.raises(RuntimeError, match=r"block 7 got rows \{.*\} of blocks, expected \{1: 2, 4: 1, -?\d+: 1\}"):
            receive(*messages)
    with pytest.raises(RuntimeError, match="block 7 got the factors of block 4 twice"):
        receive((1, one), (4, four), (4, four))


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_whom_ratings_bring_later_is_solved_as_with_all_items_there_are(spark, exponent):
    """Of six items two are rated: the others count in the sum of squares and, by `ials`, in the penalty."""
    from sparkrec.spark.algorithms.als.fold import explain, fold_in

    settings = exactly(rank=3, unobserved_weight=0.3, regularization=0.2, regularization_exponent=exponent)
    y = np.random.default_rng(0).normal(size=(6, 3))
    fixed = spark.createDataFrame([(i, y[i].tolist()) for i in range(6)], "id long, value array<float>")
    rows = [(5, 1, 1.0, 2.0), (5, 4, 1.0, 1.0), (8, 0, 1.0, 3.0), (8, 77, 1.0, 1.0)]
    ratings = spark.createDataFrame(rows, "user long, item long, value float, confidence float")
    plan = partial(fold_in, settings=settings, shift=0.0, own_first=True, preference=None)
    ids, found = collected(carry_out("als", lambda *rows: plan(*rows).frame(), ratings, fixed))
    assert ids.tolist() == [5, 8]
    for x, own in zip(found, ({1: 2.0, 4: 1.0}, {0: 3.0}), strict=True):
        c = np.array([own.get(i, 0.3) for i in range(6)])
        reg = 0.2 * (len(own) + 0.3 * 6) ** exponent
        expected = np.linalg.solve((y.T * c) @ y + reg * np.eye(3), y.T @ (c * [i in own for i in range(6)]))
        np.testing.assert_allclose(x, expected, rtol=1e-4)
    rated = spark.createDataFrame(
        [(item, 1.0, c, y[item].tolist()) for item, c in ((1, 2.0), (4, 1.0))],
        "item long, value double, confidence double, row array<float>",
    )
    explained = dict(explain(rated, found[0], y[3], fixed, settings, None))
    assert sum(explained.values()) == pytest.approx(found[0] @ y[3], rel=1e-3)


def test_a_shorter_fit_is_not_the_end_of_a_longer_one(spark, tmp_path, monkeypatch):
    from sparkrec.spark.algorithms.als.snapshots import Snapshots

    matrix = np.random.default_rng(0).integers(0, 2, (12, 9)).astype(float)
    rows = ratings_of(spark, matrix)
    settings = exactly(rank=3, iterations=7, unobserved_weight=0.1, snapshot_every=2, user_blocks=1, item_blocks=1)
    monkeypatch.setattr(Snapshots, "delete", lambda self: None)
    factorized(rows, settings, seed=0, scratch=str(tmp_path))
    for iterations in (1, 4, 5):
        shorter = settings.model_copy(update={"iterations": iterations})
        again = factorized(rows, shorter, seed=0, scratch=str(tmp_path))
        whole = factorized(rows, shorter, seed=0, scratch=None)
        for one, other in zip(again[:2], whole[:2], strict=True):
            np.testing.assert_allclose(collected(one)[1], collected(other)[1], atol=1e-5)
        assert len(again[2]) == iterations


def begun_with(ratings, settings, start):
    """Factors of users and the history of a fit that begins with rows (id, value) of earlier items."""

    def plan(rows, start):
        users, _, history = factorize(rows, settings, seed=1, scratch=None, warm_start={"item": start})
        return users.frame(), history

    return carry_out("als", plan, ratings, start)


def test_a_warm_start_has_the_items_that_it_knows_and_new_and_gone_ones_do_no_harm(spark, matrix):
    settings = exactly(rank=4, iterations=1, unobserved_weight=0.2)
    known = dict(enumerate(np.random.default_rng(1).normal(size=(15, 4))))  # and 5 new ones
    rows = [(item * 3 + 10_000_000_000, row.tolist()) for item, row in known.items()]
    start = spark.createDataFrame([*rows, (7, [100.0] * 4)], "id long, value array<float>")
    x, _ = dense_als(matrix, np.ones_like(matrix), settings, 1, known)
    users, _ = begun_with(ratings_of(spark, matrix), settings, start)
    ids, factors = collected(users)
    assert ids.tolist() == [7 * user for user in range(30)]
    np.testing.assert_allclose(factors, x, atol=1e-4)


def test_a_warm_fit_of_a_grown_log_stops_sooner_where_a_cold_one_ends(spark):
    rng = np.random.default_rng(3)
    taste = rng.integers(4, size=60)[:, None] == rng.integers(4, size=48)
    matrix = (rng.random((60, 48)) < np.where(taste, 0.5, 0.03)).astype(float)
    settings = exactly(rank=4, iterations=30, tolerance=1e-3, unobserved_weight=0.1, regularization=0.05)
    _, items, _ = factorized(ratings_of(spark, matrix[:50, :42]), settings, seed=1, scratch=None)
    grown = ratings_of(spark, matrix)
    *_, cold = factorized(grown, settings, seed=1, scratch=None)
    _, warm = begun_with(grown, settings, items)
    losses = [each["loss"] for each in cold]
    assert all(a - b >= 1e-3 * b for a, b in pairwise(losses[:-1]))
    assert losses[-2] - losses[-1] < 1e-3 * losses[-1]
    assert len(warm) < 0.7 * len(cold) < 0.7 * settings.iterations
    assert warm[-1]["loss"] < 1.01 * losses[-1]
