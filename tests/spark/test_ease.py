"""EASE is its closed form, and says when a catalogue is too large for it."""

import numpy as np
import pytest

from sparkrec.errors import TrainError
from sparkrec.spark.algorithms import ease
from sparkrec.spark.algorithms.ease import EaseSettings, fit_ease
from sparkrec.spark.data.fit_inputs import FitInputs

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("everywhere")]

N_USERS, N_ITEMS = 41, 21


def closed_form(triples, regularization):
    x = np.zeros((N_USERS, N_ITEMS))
    for user, item, value in triples:
        x[user, item] = value
    p = np.linalg.inv(x.T @ x + regularization * np.eye(N_ITEMS))
    weights = -p / np.diag(p)
    np.fill_diagonal(weights, 0)
    return x @ weights


def fit(settings, dataset, path):
    return fit_ease(settings, FitInputs(dataset, dataset.train, 0, str(path)))


def test_unseen_items_of_ones_own_taste_come_first(dataset_of, scores_of, two_tastes, tmp_path):
    dataset = dataset_of(two_tastes, N_USERS, N_ITEMS)
    model = fit(EaseSettings(regularization=5.0), dataset, tmp_path)
    scores = scores_of(model)
    np.testing.assert_allclose(scores, closed_form(two_tastes, 5.0), atol=1e-5)
    for users, own, others in (
        (slice(0, 20), slice(0, 10), slice(10, 20)),
        (slice(20, 40), slice(10, 20), slice(0, 10)),
    ):
        assert scores[users, own].mean(1).min() > np.abs(scores[users, others]).max()
    assert model.users.where("user = 40").select("index", "value").collect() == [([], [])]


def test_blocks_tiles_and_partitions_change_nothing(dataset_of, scores_of, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    cells = zip(*np.nonzero(rng.random((N_USERS, N_ITEMS)) < 0.3), strict=True)
    ratings = [(user, item, float(rng.integers(1, 6))) for user, item in cells]
    expected = closed_form(ratings, 20.0)
    for partitions, bytes_each in ((1, 1 << 20), (5, 256)):
        monkeypatch.setattr(ease, "BLOCK_BYTES", bytes_each)
        monkeypatch.setattr(ease, "TILE_BYTES", bytes_each)
        dataset = dataset_of(ratings, N_USERS, N_ITEMS, explicit=True, partitions=partitions)
        model = fit(EaseSettings(regularization=20.0), dataset, tmp_path / str(partitions))
        np.testing.assert_allclose(scores_of(model), expected, atol=2e-5)


def test_a_catalogue_that_does_not_fit_is_refused_with_both_sizes(dataset_of, tmp_path):
    dataset = dataset_of([(0, 0, 1.0)], 1, 1)
    with pytest.raises(TrainError, match=r"1 items need 0.4 GB on the driver, max_memory_gb allows 0.1.* itemknn"):
        fit(EaseSettings(max_memory_gb=0.1), dataset, tmp_path)
    assert not list(tmp_path.iterdir())


def test_too_little_regularization_is_said(dataset_of, tmp_path):
    dataset = dataset_of([(0, 0, 1e4), (0, 1, 1e4)], 1, 2)
    with pytest.raises(
        TrainError, match=r"not invertible in float32 with regularization 1e-06. Raise model.regularization"
    ):
        fit(EaseSettings(regularization=1e-6), dataset, tmp_path)
