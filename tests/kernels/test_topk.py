import numpy as np
import pytest

from sparkrec.kernels.csr import Csr
from sparkrec.kernels.retrieval import topk


def lists(*rows):
    indptr = np.cumsum([0, *map(len, rows)])
    return indptr, np.array([place for row in rows for place in row], np.int32)


def random_lists(rng, n_rows, n_columns, most):
    return lists(*(np.sort(rng.choice(n_columns, rng.integers(0, most), replace=False)) for _ in range(n_rows)))


def random_csr(rng, n_rows, n_columns, most):
    indptr, indices = random_lists(rng, n_rows, n_columns, most)
    return Csr(indptr, indices, rng.normal(size=len(indices)).astype(np.float32))


def dense(csr, n_columns):
    matrix = np.zeros((csr.n_rows, n_columns), np.float32)
    np.add.at(matrix, (np.repeat(np.arange(csr.n_rows), np.diff(csr.indptr)), csr.indices), csr.values)
    return matrix


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(params=["dense users, dense items", "sparse users, dense items", "sparse users, sparse items"])
def bilinear(request, rng):
    """(users, items as `scores` takes them, items as a dense (41, 17) matrix, scores by definition)"""
    users, items = random_csr(rng, 23, 17, 12), random_csr(rng, 41, 17, 9)
    matrix = dense(items, 17)
    expected = dense(users, 17) @ matrix.T
    if request.param == "dense users, dense items":
        return dense(users, 17), matrix, expected
    if request.param == "sparse users, dense items":
        return users, topk.prepare_items(matrix, 17), expected
    return users, topk.prepare_items(items, 17), expected


def test_every_layout_gives_the_bilinear_score(bilinear):
    users, items, expected = bilinear
    np.testing.assert_allclose(topk.scores(users, items, 0, 23), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(topk.scores(users, items, 5, 9), expected[5:9], rtol=1e-5, atol=1e-6)
    assert topk.scores(users, items, 7, 7).shape == (0, 41)


def test_a_used_buffer_leaves_no_trace_in_the_scores(bilinear):
    users, items, expected = bilinear
    buffer = np.full((23, 41), 9, np.float32)
    found = topk.scores(users, items, 0, 23, out=buffer)
    assert np.shares_memory(found, buffer)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"out: found float32 \(23, 41\), expected float32 \(22, 41\)"):
        topk.scores(users, items, 0, 22, out=buffer)


def test_scores_of_pairs_are_cells_of_the_whole(bilinear, rng):
    users, items, expected = bilinear
    pairs = random_lists(rng, 23, 41, 8)
    row_of_pair = np.repeat(np.arange(23), np.diff(pairs[0]))
    found = topk.score_pairs(users, items, pairs)
    np.testing.assert_allclose(found, expected[row_of_pair, pairs[1]], rtol=1e-5, atol=1e-6)
    if isinstance(users, Csr):
        np.testing.assert_array_equal(found, topk.scores(users, items, 0, 23)[row_of_pair, pairs[1]])


def test_a_sparse_users_score_does_not_depend_on_the_block_its_item_is_in(rng):
    users, matrix = random_csr(rng, 30, 50, 40), rng.normal(size=(101, 50)).astype(np.float32)
    whole = topk.scores(users, topk.prepare_items(matrix, 50), 0, 30)
    for cut in (1, 13, 64, 100):
        halves = [topk.scores(users, topk.prepare_items(part, 50), 0, 30) for part in (matrix[:cut], matrix[cut:])]
        np.testing.assert_array_equal(np.hstack(halves), whole)


def test_layouts_that_do_not_score_are_refused(rng):
    users, items = random_csr(rng, 3, 5, 4), rng.normal(size=(4, 5)).astype(np.float32)
    for pair in ((users, items), (items, users), (items, topk.prepare_items(items, 5))):
        with pytest.raises(TypeError, match=r"expected two matrices, or a Csr and items from prepare_items"):
            topk.scores(*pair, 0, 1)
    with pytest.raises(ValueError, match=r"found \(4, 5\) and \(4, 4\)"):
        topk.scores(items, items[:, :4], 0, 1)
    with pytest.raises(ValueError, match=r"users indices: found .* expected ids in \[0, 2\)"):
        topk.scores(users, topk.prepare_items(items[:, :2], 2), 0, 3)
    with pytest.raises(ValueError, match=r"rows \[2, 9\): expected a range inside \[0, 4\)"):
        topk.scores(items, items, 2, 9)


@pytest.mark.parametrize("k", [1, 3, 10, 400])
@pytest.mark.parametrize("n_columns", [1, 5, 127, 128, 129, 300])
def test_the_best_are_those_of_a_full_sort(k, n_columns, rng):
    scores = rng.integers(-4, 4, size=(50, n_columns)).astype(np.float32)  # ties everywhere
    scores[rng.random(scores.shape) < 0.1] = np.nan
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    scores[rng.random(scores.shape) < 0.01] = np.inf
    exclude = random_lists(rng, 50, n_columns, n_columns)
    for excluded in (None, exclude):
        found, expected = (
            topk.select_topk(scores, k, excluded),
            topk.select_topk_reference(scores, k, excluded),
        )
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_the_best_come_in_order_and_equals_by_position():
    scores = np.array([[1, 3, 2, 3, np.nan, 3], [5, 4, 3, 2, 1, 0]], np.float32)
    positions, best = topk.select_topk(scores, 4, lists([1], []))
    np.testing.assert_array_equal(positions, [[3, 5, 2, 0], [0, 1, 2, 3]])
    np.testing.assert_array_equal(best, [[3, 3, 2, 1], [5, 4, 3, 2]])


def test_a_row_with_too_few_candidates_ends_in_padding():
    scores = np.array([[1, 2, np.nan], [-np.inf, 0, 1], [0, 0, 0]], np.float32)
    positions, best = topk.select_topk(scores, 4, lists([], [1], [0, 1, 2]))
    np.testing.assert_array_equal(positions, [[1, 0, -1, -1], [2, -1, -1, -1], [-1] * 4])
    np.testing.assert_array_equal(best[0], [2, 1, -np.inf, -np.inf])


@pytest.mark.parametrize("k", [1, 7, 350])
@pytest.mark.parametrize(("height", "width"), [(50, 300), (7, 300), (50, 64), (13, 37)])
def test_the_best_of_tiles_are_those_of_the_whole(k, height, width, rng):
    scores = rng.integers(-4, 4, size=(50, 300)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.1] = np.nan
    exclude = random_lists(rng, 50, 300, 300)
    best = topk.TopK(50, 300, k, exclude)
    for row in range(0, 50, height):
        for column in range(0, 300, width):
            best.offer(scores[row : row + height, column : column + width], row, column)
    for found, expected in zip(best.finish(), topk.select_topk_reference(scores, k, exclude), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("cuts", [[150], [1, 2, 299], [100, 200]])
@pytest.mark.parametrize("k", [1, 7, 350])
def test_the_best_do_not_depend_on_how_items_are_split(cuts, k, rng):
    scores = rng.integers(0, 5, size=(20, 300)).astype(np.float32)
    scores[:, 40] = np.nan
    item_ids = np.sort(rng.choice(10**12, 300, replace=False))
    positions, best = topk.select_topk(scores, k)
    whole_ids = np.where(positions >= 0, item_ids[positions], -1)
    merged = np.full((20, 0), -1), np.full((20, 0), -np.inf, np.float32)
    for start, stop in rng.permutation(np.column_stack([[0, *cuts], [*cuts, 300]])):  # blocks in any order
        block, block_best = topk.select_topk(np.ascontiguousarray(scores[:, start:stop]), k)
        block_ids = np.where(block >= 0, item_ids[start:stop][block], -1)
        merged = topk.merge_topk(*merged, block_ids, block_best, k)
    np.testing.assert_array_equal(merged[0], whole_ids)
    np.testing.assert_array_equal(merged[1], best)


def test_merging_with_nothing_changes_nothing():
    ids, best = np.array([[7, 3, -1]]), np.array([[2, 1, -np.inf]], np.float32)
    nothing = np.full((1, 2), -1), np.full((1, 2), -np.inf, np.float32)
    for merged in (topk.merge_topk(ids, best, *nothing, 3), topk.merge_topk(*nothing, ids, best, 3)):
        np.testing.assert_array_equal(merged[0], ids)
        np.testing.assert_array_equal(merged[1], best)


def test_counts_are_those_of_comparing_with_every_column(rng):
    scores = rng.integers(0, 6, size=(30, 200)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.05] = np.nan
    scores[rng.random(scores.shape) < 0.05] = -np.inf
    targets = random_lists(rng, 30, 200, 9)
    exclude = random_lists(rng, 30, 200, 50)
    row_of_target = np.repeat(np.arange(30), np.diff(targets[0]))
    target_scores = scores[row_of_target, targets[1]]
    greater, equal = topk.count_above(scores, targets[0], target_scores, *exclude)
    lowest = np.nan_to_num(scores, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    for t, row in enumerate(row_of_target):
        allowed = np.delete(lowest[row], exclude[1][exclude[0][row] : exclude[0][row + 1]])
        target = lowest[row, targets[1][t]]
        assert (greater[t], equal[t]) == ((allowed > target).sum(), (allowed == target).sum())


def test_counts_of_blocks_add_up_and_a_target_counts_itself(rng):
    scores = rng.normal(size=(10, 60)).astype(np.float32)
    targets = lists(*([r, r + 20] for r in range(10)))
    target_scores = scores[np.repeat(np.arange(10), 2), targets[1]]
    nothing = lists(*([] for _ in range(10)))
    greater, equal = topk.count_above(scores, targets[0], target_scores, *nothing)
    parts = [topk.count_above(scores[:, part], targets[0], target_scores, *nothing) for part in np.s_[:25, 25:]]
    np.testing.assert_array_equal(parts[0][0] + parts[1][0], greater)
    np.testing.assert_array_equal(parts[0][1] + parts[1][1], equal)
    np.testing.assert_array_equal(equal, np.ones(20))


def test_lists_of_positions_must_fit(rng):
    scores = np.zeros((2, 4), np.float32)
    with pytest.raises(ValueError, match="exclude: the ids of row 1 are not strictly ascending"):
        topk.select_topk(scores, 1, lists([0], [2, 1]))
    with pytest.raises(ValueError, match=r"exclude: found 0 to 4, expected ids in \[0, 4\)"):
        topk.select_topk(scores, 1, lists([0], [4]))
    with pytest.raises(ValueError, match="exclude: found 1 rows, expected 2"):
        topk.select_topk(scores, 1, lists([0]))
    with pytest.raises(ValueError, match="k: found 0, expected at least 1"):
        topk.select_topk(scores, 0)
    with pytest.raises(ValueError, match="targets: found 1 rows, expected 2"):
        topk.count_above(scores, np.array([0, 0]), np.zeros(0, np.float32), *lists([], []))


def test_read_only_arrays_are_welcome(bilinear):
    users, items, expected = bilinear

    def arrow(array):
        return np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)

    def locked(thing):
        if isinstance(thing, topk.SourceMajor):
            return thing._replace(by_source=locked(thing.by_source))
        return Csr(*map(arrow, thing)) if isinstance(thing, Csr) else arrow(thing)

    tile = topk.scores(locked(users), locked(items), 0, 23)
    np.testing.assert_allclose(tile, expected, rtol=1e-5, atol=1e-6)
    exclude = tuple(map(arrow, lists(*([3, 4] for _ in range(23)))))
    positions, best = topk.select_topk(arrow(tile), 5, exclude)
    assert not np.isin(positions, [3, 4]).any()
    topk.merge_topk(arrow(positions), arrow(best), arrow(positions[:, :0]), arrow(best[:, :0]), 5)
    topk.score_pairs(locked(users), locked(items), exclude)
    topk.count_above(arrow(tile), exclude[0], arrow(best[:, :2].ravel()), *exclude)


def test_merging_keeps_the_best_of_both_and_the_lower_id_of_equals():
    a_ids, a = np.array([[0, 9, -1], [5, 6, 7]]), np.array([[3, 1, -np.inf], [5, 4, 3]], np.float32)
    b_ids, b = np.array([[4, 2], [8, -1]]), np.array([[3, 1], [2, -np.inf]], np.float32)
    for first, second in (((a_ids, a), (b_ids, b)), ((b_ids, b), (a_ids, a))):
        ids, best = topk.merge_topk(*first, *second, 5)
        np.testing.assert_array_equal(ids, [[0, 4, 2, 9, -1], [5, 6, 7, 8, -1]])
        np.testing.assert_array_equal(best, [[3, 3, 1, 1, -np.inf], [5, 4, 3, 2, -np.inf]])
