"""Neighbours are those of the dense cosine, whatever the blocks; recommendations follow taste."""

import numpy as np
import pytest

from sparkrec.errors import TrainError
from sparkrec.spark.algorithms import _neighbors as neighbors
from sparkrec.spark.algorithms.itemknn import ItemKnnSettings, fit_itemknn
from sparkrec.spark.algorithms.userknn import UserKnnSettings, fit_userknn
from sparkrec.spark.data.fit_inputs import FitInputs

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("everywhere")]

N_USERS, N_ITEMS = 41, 21


def dense(triples):
    matrix = np.zeros((N_USERS, N_ITEMS))
    for user, item, value in triples:
        matrix[user, item] = value
    return matrix


def weighted(rows, weighting):
    """Rows of the matrix whose rows are compared, weighted by the textbook."""
    if weighting == "none":
        return rows
    seen = rows.any(1)
    idf = np.log((1 + seen.sum()) / (1 + (rows > 0).sum(0)))
    if weighting == "tfidf":
        return np.sqrt(rows) * idf
    length = rows.sum(1, keepdims=True) / rows[seen].sum(1).mean()
    return idf * rows * 2.2 / (rows + 1.2 * (0.25 + 0.75 * length))


def dense_scores(rows, settings):
    """(n, n) similarity to the top neighbours of each row, as Dacrema et al. 2021 define it."""
    x = weighted(rows, settings.weighting)
    squares = (x**2).sum(1)
    norms = np.outer(squares**settings.asymmetry, squares ** (1 - settings.asymmetry))
    similarity = (x @ x.T) / (norms + settings.shrinkage + 1e-30)
    np.fill_diagonal(similarity, 0)
    rounded = similarity.astype(np.float32)
    for row in rounded:
        row[np.argsort(-row, kind="stable")[settings.neighbors :]] = 0
    votes = np.abs(rounded).sum(0)
    return rounded / np.where(votes > 0, votes, 1) ** settings.normalization


@pytest.fixture(scope="module")
def ratings():
    """Ratings of 1 to 5 by nobody's taste; user 40 and item 20 have none."""
    rng = np.random.default_rng(1)
    cells = zip(*np.nonzero(rng.random((N_USERS - 1, N_ITEMS - 1)) < 0.3), strict=True)
    return [(u, i, float(rng.integers(1, 6))) for u, i in cells]


@pytest.mark.parametrize("weighting", ["none", "bm25", "tfidf"])
def test_itemknn_scores_are_those_of_the_dense_formula(dataset_of, scores_of, ratings, tmp_path, weighting):
    settings = ItemKnnSettings(neighbors=5, shrinkage=3.0, weighting=weighting, asymmetry=0.2, normalization=0.6)
    dataset = dataset_of(ratings, N_USERS, N_ITEMS, explicit=True)
    model = fit_itemknn(settings, FitInputs(dataset, dataset.train, 0, str(tmp_path)))
    matrix = dense(ratings)
    np.testing.assert_allclose(scores_of(model), matrix @ dense_scores(matrix.T, settings).T, rtol=1e-4, atol=1e-5)


def test_userknn_scores_are_those_of_the_dense_formula(dataset_of, scores_of, ratings, tmp_path):
    settings = UserKnnSettings(neighbors=7, shrinkage=2.0, weighting="tfidf", asymmetry=0.7, normalization=1.0)
    dataset = dataset_of(ratings, N_USERS, N_ITEMS, explicit=True)
    model = fit_userknn(settings, FitInputs(dataset, dataset.train, 0, str(tmp_path)))
    matrix = dense(ratings)
    np.testing.assert_allclose(scores_of(model), dense_scores(matrix, settings) @ matrix, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("fit", "settings"),
    [(fit_itemknn, ItemKnnSettings(neighbors=9)), (fit_userknn, UserKnnSettings(neighbors=15))],
)
def test_unseen_items_of_ones_own_taste_come_first(dataset_of, scores_of, two_tastes, tmp_path, fit, settings):
    dataset = dataset_of(two_tastes, N_USERS, N_ITEMS)
    model = fit(settings, FitInputs(dataset, dataset.train, 0, str(tmp_path)))
    scores = scores_of(model)
    own = np.zeros((N_USERS, N_ITEMS), bool)
    own[:20, :10] = own[20:40, 10:20] = True
    assert (scores[own] > 0).all()
    assert (scores[~own] == 0).all()
    assert model.users.where("user = 40").select("index", "value").collect() == [([], [])]


def test_blocks_and_partitions_change_nothing(dataset_of, two_tastes, tmp_path, monkeypatch, scores_of):
    # equally similar items abound here: the lower id wins, wherever it lies
    settings = ItemKnnSettings(neighbors=3, shrinkage=1.0)

    def rows(partitions, name):
        dataset = dataset_of(two_tastes, N_USERS, N_ITEMS, partitions=partitions)
        model = fit_itemknn(settings, FitInputs(dataset, dataset.train, 0, str(tmp_path / name)))
        return sorted(model.items.collect()), sorted(model.users.collect())

    whole = rows(1, "whole")
    monkeypatch.setattr(neighbors, "BLOCK_BYTES", 800)
    assert rows(5, "blocks") == whole
    matrix = dense(two_tastes)
    expected = dense_scores(matrix.T, settings)
    for item, index, value in whole[0]:
        assert index == list(np.flatnonzero(expected[item]))
        assert value == pytest.approx(expected[item][index])


def test_weighting_refuses_what_has_no_logarithm(dataset_of, tmp_path):
    dataset = dataset_of([(0, 0, -1.0), (1, 0, 2.0)], 2, 1, explicit=True)
    with pytest.raises(TrainError, match="weighting bm25 is for strengths above 0, but one is -1"):
        fit_itemknn(ItemKnnSettings(weighting="bm25"), FitInputs(dataset, dataset.train, 0, str(tmp_path)))
