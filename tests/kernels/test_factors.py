"""Gradients of inner products are those of dense matrices."""

import numpy as np
import pytest

from sparkrec.kernels import factors


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=(7, 5)).astype(np.float32), rng.normal(size=(9, 5)).astype(np.float32)
    user, item = rng.integers(0, 6, 20), rng.integers(0, 8, (20, 3)).astype(np.int32)  # the last rows are not read
    return users, items, user, item, rng.normal(size=(20, 3)).astype(np.float32)


def test_scores_and_gradients_are_those_of_dense_matrices(batch):
    users, items, user, item, by_score = batch
    x, w = np.column_stack([users, np.ones(7)]), np.column_stack([items[:, :4], np.ones(9), items[:, 4]])
    found = factors.inner_products(users, items, user, item)
    np.testing.assert_allclose(found, (x @ w.T)[user[:, None], item], rtol=1e-5, atol=1e-6)

    by_pair = np.zeros((7, 9))
    np.add.at(by_pair, (user[:, None], item), by_score)
    ones = np.ones((9, 1))
    for (rows, gradients), expected, read in (
        (factors.user_gradients(items, user, item, by_score, 7), by_pair @ np.hstack([items[:, :4], ones]), user),
        (factors.item_gradients(users, user, item, by_score, 9), by_pair.T @ np.hstack([users[:, :4], ones[:7]]), item),
    ):
        np.testing.assert_array_equal(rows, np.unique(read))
        np.testing.assert_allclose(gradients, expected[rows], rtol=1e-4, atol=1e-5)


def test_rows_that_are_not_there_are_refused(batch):
    users, items, user, item, _ = batch
    with pytest.raises(ValueError, match=r"users: found rows 0 to 7, expected them in \[0, 7\)"):
        factors.inner_products(users, items, np.array([0, 7]), item[:2])
    with pytest.raises(ValueError, match=r"items: found rows -1 to \d, expected them in \[0, 9\)"):
        factors.inner_products(users, items, user[:2], np.array([[1, 2], [-1, 3]], np.int32))
