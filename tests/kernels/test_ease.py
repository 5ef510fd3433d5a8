import tracemalloc

import numpy as np
import pytest

from sparkrec.kernels.csr import Csr
from sparkrec.kernels.retrieval import ease


def interactions(n_users, n_items, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random((n_users, n_items)) < 0.2).astype(np.float32)


def gram_of(x):
    return (x.T @ x).astype(np.float32)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("m", [1, 2, 50, 130])
def test_the_weights_are_those_of_the_inverse(m, order, monkeypatch):
    monkeypatch.setattr(ease, "TILE", 32)  # so that a small matrix has whole, cut and diagonal tiles
    gram = gram_of(interactions(300, m))
    expected = ease.ease_weights_reference(gram, 20.0)
    found = ease.ease_weights(np.array(gram, order=order), 20.0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(np.diag(found), np.zeros(m))


def test_a_gram_adds_up_and_its_lower_triangle_is_all_that_weights_take():
    x = interactions(300, 40)
    gram = np.zeros((40, 40), np.float32)
    for part in (x[:200], x[200:]):
        user, item = np.nonzero(part)
        ease.add_gram(gram, Csr.from_pairs(user, item, 2.0 * part[user, item], len(part)))
    np.testing.assert_array_equal(gram, np.tril(gram_of(2.0 * x)))
    expected = ease.ease_weights_reference(gram_of(2.0 * x), 20.0)
    for triangle in (gram.copy(), np.asfortranarray(gram.T)):
        np.testing.assert_allclose(ease.ease_weights(triangle, 20.0), expected, atol=1e-5)


def test_column_j_predicts_item_j_from_the_others_as_ridge_regression_does():
    x = interactions(200, 12).astype(np.float64)
    weights = ease.ease_weights(gram_of(x), 3.0)
    for j in range(12):
        others = np.delete(np.arange(12), j)
        ridge = np.linalg.solve(x[:, others].T @ x[:, others] + 3.0 * np.eye(11), x[:, others].T @ x[:, j])
        np.testing.assert_allclose(weights[others, j], ridge, atol=1e-5)


def test_an_item_that_always_comes_with_another_is_predicted_by_it_alone():
    rng = np.random.default_rng(0)
    x = (rng.random((500, 6)) < 0.3).astype(np.float32)
    x[:, 5] = x[:, 2]
    weights = ease.ease_weights(gram_of(x), 1.0)
    assert weights[:, 5].argmax() == 2
    assert weights[2, 5] > 0.95
    assert np.abs(np.delete(weights[:, 5], 2)).max() < 0.05


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_work_is_done_inside_the_one_matrix(order, monkeypatch):
    monkeypatch.setattr(ease, "TILE", 8)
    gram = np.array(gram_of(interactions(200, 300)), order=order)
    tracemalloc.start()
    weights = ease.ease_weights(gram, 10.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert weights is gram
    assert peak < 0.25 * gram.nbytes


def test_what_is_not_positive_definite_is_refused(monkeypatch):
    monkeypatch.setattr(ease, "TILE", 2)
    gram = -np.eye(4, dtype=np.float32)
    gram[:2, :2] = np.eye(2)
    with pytest.raises(
        ease.NotPositiveDefinite,
        match=r"gram \+ 0\.5 I is not positive definite in float32, from items 2 to 3 of 4",
    ):
        ease.ease_weights(gram, 0.5)
    with pytest.raises(ease.NotPositiveDefinite):
        ease.ease_weights(np.full((3, 3), np.nan, np.float32), 1.0)


def test_what_could_not_be_done_in_place_is_refused():
    gram = np.eye(4, dtype=np.float32)
    locked = np.frombuffer(gram.tobytes(), np.float32).reshape(4, 4)
    for wrong in (locked, np.eye(8, dtype=np.float32)[::2, ::2]):
        with pytest.raises(ValueError, match="expected a writable, contiguous matrix to work in; pass a copy"):
            ease.ease_weights(wrong, 1.0)
    for wrong in (np.eye(4), np.ones((4, 3), np.float32), np.ones(4, np.float32)):
        with pytest.raises(ValueError, match="expected a square float32 matrix"):
            ease.ease_weights(wrong, 1.0)
    for wrong in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="regularization: found .* expected more than 0"):
            ease.ease_weights(gram, wrong)
