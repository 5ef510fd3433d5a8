import pickle

import numpy as np
import pytest

from sparkrec.kernels.als import half_step as als
from sparkrec.kernels.als.conjugate_gradient import KEPT
from sparkrec.kernels.csr import Csr

try:
    from sparkrec.kernels.als import on_gpu as als_torch
except ImportError:  # the Spark half alone
    als_torch = None

HALF_STEPS = [
    pytest.param(als.half_step, id="numba"),
    pytest.param(
        als_torch and als_torch.half_step,
        id="torch",
        marks=[pytest.mark.torch, pytest.mark.skipif(als_torch is None, reason="torch is not installed")],
    ),
]
LENGTHS = [
    3,
    0,
    1,
    40,
    0,
    15,
    16,
    17,
    5000,
    255,
    256,
    257,
    2,
]  # empty, one-entry, around a chunk, very popular


def problem(d, lengths=LENGTHS, n_src=6000, seed=0):
    rng = np.random.default_rng(seed)
    columns = np.concatenate([rng.choice(n_src, length, replace=False) for length in lengths])
    rows = np.repeat(np.arange(len(lengths)), lengths)
    targets = Csr.from_pairs(rows, columns, rng.normal(size=len(rows)), len(lengths))
    src = (rng.normal(size=(n_src, d)) / np.sqrt(d)).astype(np.float32)
    return targets, src, rng


def arguments(kind, targets, src, rng):
    ones, n_observed = np.ones(targets.nnz, np.float32), np.diff(targets.indptr)
    if kind == "explicit":
        return ones, np.zeros((src.shape[1], src.shape[1])), 0.0, (0.1 * n_observed).astype(np.float32)
    if kind == "implicit":
        confidence = (1 + 40 * rng.random(targets.nnz)).astype(np.float32)
        return confidence, als.gram(src), 1.0, np.full(targets.n_rows, 0.1)
    if kind == "ials":
        return ones + 0.3, 0.3 * als.gram(src), 0.3, 0.01 * (n_observed + 0.3 * len(src))
    assert kind == "less sure of what was seen than of what was not"
    confidence = (0.4 * rng.random(targets.nnz)).astype(np.float32)
    return confidence, als.gram(src), 1.0, np.full(targets.n_rows, 10.0)


KINDS = ["explicit", "implicit", "ials", "less sure of what was seen than of what was not"]


@pytest.mark.parametrize("half_step", HALF_STEPS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 3, 16, 65])
def test_the_fast_half_step_is_the_readable_one(d, kind, half_step):
    targets, src, rng = problem(d)
    rest = arguments(kind, targets, src, rng)
    fast, fast_loss = half_step(targets, rest[0], src, *rest[1:])
    slow, slow_loss = als.half_step_reference(targets, rest[0], src, *rest[1:])
    assert fast_loss == pytest.approx(slow_loss, rel=1e-4)
    assert fast.dtype == slow.dtype == np.float32
    np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-5)
    assert np.abs(fast[[0, 2, 3]]).min() > 0


SOLVERS = [
    als.Solver("nonnegative"),
    als.Solver("cg", steps=1),
    als.Solver("cg", steps=4),
    als.Solver("coordinate", width=3),
    als.Solver("coordinate", width=8),
    als.Solver("coordinate", width=100),
]


@pytest.mark.parametrize("half_step", HALF_STEPS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_every_solver_is_its_readable_one(solver, kind, half_step):
    targets, src, rng = problem(21)
    confidence, gram, weight, reg = arguments(kind, targets, src, rng)
    start = 0.1 * rng.normal(size=(targets.n_rows, 21)).astype(np.float32)
    given = targets, confidence, src, gram, weight, reg, solver, start
    kept = start.copy()
    (fast, fast_loss), (slow, slow_loss) = half_step(*given), als.half_step_reference(*given)
    assert fast_loss == pytest.approx(slow_loss, rel=1e-4)
    np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=2e-5)
    np.testing.assert_array_equal(start, kept)


@pytest.mark.parametrize("solver", [als.Solver("cg", steps=40), als.Solver("coordinate", width=9)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_steps_from_anywhere_come_to_the_exact_solution(solver, kind):
    targets, src, rng = problem(9)
    given = targets, *arguments(kind, targets, src, rng)
    given = given[0], given[1], src, *given[2:]
    start = rng.normal(size=(targets.n_rows, 9)).astype(np.float32)
    np.testing.assert_allclose(als.half_step(*given, solver, start)[0], als.half_step(*given)[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_nonnegative_factors_cannot_be_improved_without_leaving_the_quadrant(kind):
    targets, src, rng = problem(12)
    confidence, gram, weight, reg = arguments(kind, targets, src, rng)
    found, _ = als.half_step(targets, confidence, src, gram, weight, reg, als.Solver("nonnegative"))
    assert found.min() == 0
    assert (found[0] > 0).any()
    for u in np.flatnonzero(np.diff(targets.indptr)):
        own = slice(targets.indptr[u], targets.indptr[u + 1])
        a, b = als.equations(targets.rows(u, u + 1), confidence[own], src, weight)
        gradient = (a + gram + reg[u] * np.eye(12)) @ found[u] - b
        scale = 1e-5 * np.abs(b).max()
        assert gradient.min() > -scale
        assert np.abs(gradient[found[u] > 0]).max(initial=0) < scale


@pytest.mark.parametrize("solver", [als.EXACT, *SOLVERS], ids=str)
def test_a_row_summed_in_parts_is_the_row(solver):
    targets, src, rng = problem(10, lengths=[3000])
    confidence, gram, weight, reg = arguments("ials", targets, src, rng)
    start = 0.1 * rng.normal(size=(1, 10)).astype(np.float32)
    whole, _ = als.half_step(targets, confidence, src, gram, weight, reg, solver, start)
    a, b = np.zeros((10, 10)), np.zeros(10)
    for part in (slice(0, 1000), slice(1000, 1001), slice(1001, 3000)):
        indptr = np.array([0, part.stop - part.start])
        row = Csr(indptr, targets.indices[part], targets.values[part])
        for total, more in zip((a, b), als.equations(row, confidence[part], src, weight), strict=True):
            total += more
    np.testing.assert_allclose(als.solve(a + gram, b, reg[0], solver, start[0]), whole[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 4])
def test_cg_counts_every_rating_of_a_row_that_is_longer_than_what_it_keeps(steps):
    lengths = [KEPT + 300, 5, KEPT]
    targets, src, rng = problem(3, lengths=lengths, n_src=KEPT + 400)
    confidence, gram, weight, reg = arguments("implicit", targets, src, rng)
    heavy = np.array([0, KEPT - 1, KEPT, KEPT + 1, KEPT + 299, KEPT + 305, len(confidence) - 1])
    confidence[heavy] = 1e5  # so that none of them can be lost in the sum of all
    start = 0.1 * rng.normal(size=(3, 3)).astype(np.float32)
    given = targets, confidence, src, gram, weight, reg, als.Solver("cg", steps=steps), start
    (fast, fast_loss), (slow, slow_loss) = als.half_step(*given), als.half_step_reference(*given)
    np.testing.assert_allclose(fast, slow, rtol=1e-3, atol=1e-4)
    assert fast_loss == pytest.approx(slow_loss, rel=1e-4)


@pytest.mark.parametrize("half_step", HALF_STEPS)
def test_solvers_that_go_on_need_something_to_go_on_from(half_step):
    targets, src, rng = problem(4)
    confidence, gram, weight, reg = arguments("ials", targets, src, rng)
    with pytest.raises(ValueError, match=r"start: found None, expected \(13, 4\) for cg and coordinate"):
        half_step(targets, confidence, src, gram, weight, reg, als.Solver("cg"))


@pytest.mark.parametrize("kind", KINDS)
def test_no_step_away_from_the_solution_lowers_the_objective(kind):
    targets, src, rng = problem(6, lengths=[30, 4, 200], n_src=300)
    confidence, gram, weight, reg = arguments(kind, targets, src, rng)
    best, _ = als.half_step(targets, confidence, src, gram, weight, reg)

    def objective(dst):
        loss = als.squared_loss(targets, confidence, dst, src, weight, gram)
        return loss + np.sum(reg * np.sum(dst.astype(np.float64) ** 2, axis=1))

    for _ in range(20):
        step = 0.05 * rng.normal(size=best.shape).astype(np.float32)
        assert objective(best + step) > objective(best)


def test_the_loss_is_the_weighted_squared_error_of_every_cell():
    targets, src, rng = problem(5, lengths=[10, 0, 1, 60], n_src=80)
    dst = rng.normal(size=(4, 5)).astype(np.float32)
    confidence = (1 + rng.random(targets.nnz)).astype(np.float32)
    weight, target = np.full((4, 80), 0.25), np.zeros((4, 80))
    cells = np.repeat(np.arange(4), np.diff(targets.indptr)), targets.indices
    weight[cells], target[cells] = confidence, targets.values
    every_cell = np.sum(weight * (target - dst.astype(np.float64) @ src.T.astype(np.float64)) ** 2)
    loss = als.squared_loss(targets, confidence, dst, src, 0.25, 0.25 * als.gram(src))
    assert loss == pytest.approx(every_cell, rel=1e-6)


def test_known_factors_are_recovered_from_their_own_products():
    rng = np.random.default_rng(0)
    truth, src = rng.normal(size=(20, 8)).astype(np.float32), rng.normal(size=(50, 8)).astype(np.float32)
    rows, columns = np.divmod(np.arange(1000), 50)
    targets = Csr.from_pairs(rows, columns, (truth @ src.T).ravel(), 20)
    found, _ = als.half_step(targets, np.ones(1000, np.float32), src, np.zeros((8, 8)), 0.0, np.full(20, 1e-6))
    np.testing.assert_allclose(found, truth, atol=1e-4)


def test_rows_do_not_feel_their_neighbours():
    targets, src, rng = problem(7)
    confidence, gram, weight, reg = arguments("implicit", targets, src, rng)
    whole, _ = als.half_step(targets, confidence, src, gram, weight, reg)
    for u in range(targets.n_rows):
        own = slice(targets.indptr[u], targets.indptr[u + 1])
        alone, _ = als.half_step(targets.rows(u, u + 1), confidence[own], src, gram, weight, reg[u : u + 1])
        np.testing.assert_array_equal(alone[0], whole[u])


@pytest.mark.parametrize("half_step", HALF_STEPS)
def test_a_row_without_observations_is_zero_even_where_its_system_is_singular(half_step):
    targets = Csr(np.array([0, 0, 0]), np.zeros(0, np.int32), np.zeros(0, np.float32))
    src = np.ones((4, 3), np.float32)
    for step in (half_step, als.half_step_reference):
        dst, _ = step(targets, np.zeros(0, np.float32), src, np.zeros((3, 3)), 0.0, np.zeros(2))
        np.testing.assert_array_equal(dst, np.zeros((2, 3)))


def test_read_only_arrays_are_welcome_and_give_the_same():
    targets, src, rng = problem(9, lengths=[5, 300])
    confidence, gram, weight, reg = arguments("ials", targets, src, rng)
    expected, _ = als.half_step(targets, confidence, src, gram, weight, reg)

    def arrow(array):
        return np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)

    found, _ = als.half_step(Csr(*map(arrow, targets)), arrow(confidence), arrow(src), arrow(gram), weight, arrow(reg))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("step", [*HALF_STEPS, pytest.param(als.half_step_reference, id="reference")])
@pytest.mark.parametrize(
    ("spoil", "row", "reason"),
    [
        ("too few observations, no regularization", 2, als.NOT_POSITIVE_DEFINITE),
        ("negative regularization", 3, als.NOT_POSITIVE_DEFINITE),
        ("confidence", 3, als.NOT_FINITE),
        ("target", 3, als.NOT_FINITE),
        ("src", 0, als.NOT_FINITE),
        ("reg", 5, als.NOT_FINITE),
        ("solution beyond float32", 2, als.NOT_FINITE),
    ],
)
def test_a_row_without_a_solution_is_named(step, spoil, row, reason):
    targets, src, rng = problem(6, n_src=5000)
    confidence, gram, weight, reg = arguments("explicit", targets, src, rng)
    reg += 1
    entry = targets.indptr[row]
    if spoil == "too few observations, no regularization":
        reg[row] = 0
    elif spoil == "negative regularization":
        reg[row] = -50
    elif spoil == "confidence":
        confidence[entry] = np.nan
    elif spoil == "target":
        targets.values[entry] = np.inf
    elif spoil == "src":
        src[targets.indices[entry], 2] = np.nan
    elif spoil == "reg":
        reg[row] = np.nan
    else:
        src[targets.indices[entry]] *= 0.01
        targets.values[entry], reg[row] = 3e38, 1e-6
    with pytest.raises(als.SingularSystem) as caught:
        step(targets, confidence, src, gram, weight, reg)
    assert (caught.value.row, caught.value.reason) == (row, reason)
    assert str(caught.value) == f"row {row} cannot be solved: {reason}"
    assert pickle.loads(pickle.dumps(caught.value)).row == row


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"confidence": np.ones(3, np.float32)},
            "confidence: found 3 weights, expected one for each of 5 targets",
        ),
        ({"gram": np.zeros((3, 3))}, r"gram: found shape \(3, 3\), expected \(4, 4\)"),
        ({"reg": np.ones(3)}, "reg: found 3 values, expected one for each of 2 dst rows"),
        ({"src": np.ones((2, 4), np.float32)}, r"targets indices: found .* expected ids in \[0, 2\)"),
        ({"src": np.ones((9, 0), np.float32)}, "src: found 0 factors"),
    ],
)
def test_arguments_that_do_not_fit_together_are_named(change, message):
    targets = Csr(np.array([0, 2, 5]), np.array([0, 8, 1, 2, 3], np.int32), np.ones(5, np.float32))
    good = {
        "confidence": np.ones(5, np.float32),
        "src": np.ones((9, 4), np.float32),
        "gram": np.zeros((4, 4)),
        "unobserved_weight": 0.0,
        "reg": np.ones(2),
    }
    with pytest.raises(ValueError, match=message):
        als.half_step(targets, **(good | change))


def test_grams_of_blocks_add_up_to_the_gram():
    src = np.random.default_rng(0).normal(size=(10_000, 5)).astype(np.float32)
    exact = src.astype(np.float64).T @ src.astype(np.float64)
    np.testing.assert_allclose(als.gram(src), exact, rtol=1e-12)
    np.testing.assert_allclose(als.gram(src[:123]) + als.gram(src[123:]), exact, rtol=1e-12)


@pytest.mark.parametrize("half_step", HALF_STEPS)
def test_rows_without_ratings_cost_nothing_and_are_zero(half_step):
    targets, src, rng = problem(4, lengths=[0, 0, 0])
    confidence, *rest = arguments("implicit", targets, src, rng)
    dst, loss = half_step(targets, confidence, src, *rest)
    assert loss == 0.0
    np.testing.assert_array_equal(dst, np.zeros((3, 4)))
