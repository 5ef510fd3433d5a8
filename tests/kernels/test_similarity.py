import numpy as np
import pytest

from sparkrec.kernels.csr import Csr
from sparkrec.kernels.retrieval.similarity import cosine_topn, cosine_topn_reference, row_norms


def matrix(rows, columns, values, n_rows, n_columns):
    """(rows, columns) of `cosine_topn`"""
    return Csr.from_pairs(rows, columns, values, n_rows), Csr.from_pairs(columns, rows, values, n_columns)


def random_matrix(seed, n_rows=60, n_columns=40, density=0.15, draw=lambda rng, n: rng.integers(-3, 4, n)):
    rng = np.random.default_rng(seed)
    cells = np.flatnonzero(rng.random(n_rows * n_columns) < density)
    cells = cells[cells // n_columns != 7]  # row 7 is empty
    return matrix(cells // n_columns, cells % n_columns, draw(rng, len(cells)), n_rows, n_columns)


def assert_same(found, expected):
    np.testing.assert_array_equal(found.indptr, expected.indptr)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-6)


@pytest.mark.parametrize("shrinkage", [0.0, 12.5])
@pytest.mark.parametrize("n", [1, 5, 1000])
def test_the_neighbours_are_those_of_the_whole_similarity_matrix(n, shrinkage):
    for seed in range(3):  # small integers: ties, cancellations to zero and explicit zeros
        rows, columns = random_matrix(seed)
        norms = row_norms(rows)
        found = cosine_topn(rows, columns, norms, 0, 60, n, shrinkage)
        assert_same(found, cosine_topn_reference(rows, columns, norms, 0, 60, n, shrinkage))


def test_blocks_of_rows_find_what_the_whole_finds():
    rows, columns = random_matrix(0, draw=lambda rng, n: rng.random(n))
    norms = row_norms(rows)
    whole = cosine_topn(rows, columns, norms, 0, 60, 6, 1.0)
    for start, stop in ((0, 1), (1, 30), (30, 30), (30, 60)):
        assert_same(cosine_topn(rows, columns, norms, start, stop, 6, 1.0), whole.rows(start, stop))


def test_similarity_by_hand():
    # Row 0 is (1, 2), row 1 (2, 4), row 2 (2, 0), row 3 (0, -1).
    rows, columns = matrix(
        np.array([0, 0, 1, 1, 2, 3]), np.array([0, 1, 0, 1, 0, 1]), np.array([1, 2, 2, 4, 2, -1]), 4, 2
    )
    found = cosine_topn(rows, columns, row_norms(rows), 0, 1, 3, 0.0)
    np.testing.assert_array_equal(found.indices, [1, 2, 3])
    np.testing.assert_allclose(found.values, [1, 1 / 5**0.5, -2 / 5**0.5], rtol=1e-6)
    shrunk = cosine_topn(rows, columns, row_norms(rows), 0, 1, 1, 10.0)
    np.testing.assert_allclose(shrunk.values, [10 / (10 + 10)], rtol=1e-6)


def test_equally_similar_rows_go_by_ascending_id():
    rows, columns = matrix(np.arange(9), np.zeros(9, np.int64), np.ones(9), 9, 1)
    found = cosine_topn(rows, columns, row_norms(rows), 4, 5, 5, 0.0)
    np.testing.assert_array_equal(found.indices, [0, 1, 2, 3, 5])


def test_a_very_popular_column_makes_everyone_neighbours():
    n = 5000
    rows, columns = matrix(np.arange(n), np.zeros(n, np.int64), np.ones(n), n, 3)
    found = cosine_topn(rows, columns, row_norms(rows), 0, 3, n, 0.0)
    np.testing.assert_array_equal(np.diff(found.indptr), [n - 1] * 3)


def test_rows_that_share_nothing_have_no_neighbours():
    rows, columns = matrix(np.arange(4), np.arange(4), np.ones(4), 5, 4)
    assert cosine_topn(rows, columns, row_norms(rows), 0, 5, 3, 0.0).nnz == 0


def test_the_length_of_an_empty_row_is_zero():
    rows, _ = matrix(np.array([0, 0, 2]), np.array([0, 1, 0]), np.array([3, 4, -2]), 4, 2)
    np.testing.assert_array_equal(row_norms(rows), [5, 0, 2, 0])


def test_read_only_arrays_are_welcome():
    rows, columns = random_matrix(1)
    locked = [Csr(*(np.frombuffer(part.tobytes(), part.dtype) for part in csr)) for csr in (rows, columns)]
    norms = np.frombuffer(row_norms(rows).tobytes())
    assert_same(cosine_topn(*locked, norms, 0, 60, 4, 0.0), cosine_topn(rows, columns, norms, 0, 60, 4, 0.0))


def test_parts_that_do_not_fit_are_refused():
    rows, columns = random_matrix(0)
    norms = row_norms(rows)
    with pytest.raises(ValueError, match="n: found 0, expected at least 1"):
        cosine_topn(rows, columns, norms, 0, 60, 0, 0.0)
    with pytest.raises(ValueError, match="norms: found 59, expected 60"):
        cosine_topn(rows, columns, norms[1:], 0, 60, 1, 0.0)
    with pytest.raises(ValueError, match="as the transpose of rows"):
        cosine_topn(rows, columns.rows(0, 20), norms, 0, 60, 1, 0.0)
    with pytest.raises(ValueError, match=r"rows \[0, 61\): expected a range inside \[0, 60\)"):
        cosine_topn(rows, columns, norms, 0, 61, 1, 0.0)
