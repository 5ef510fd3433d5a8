import numpy as np
import pytest

from sparkrec.kernels.metrics.clicks import auc, calibration, grouped_auc, log_loss, reliability


def by_pairs(scores, clicked):
    wins = scores[clicked][:, None] - scores[~clicked]
    return ((wins > 0) + 0.5 * (wins == 0)).mean()


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=500).round(1)  # with ties
    return scores, rng.random(500) < 1 / (1 + np.exp(-scores)), rng.integers(0, 40, 500)


def test_auc_is_the_share_of_pairs_in_order(rows):
    scores, clicked, _ = rows
    assert auc(scores, clicked) == pytest.approx(by_pairs(scores, clicked))
    assert auc(np.zeros(10), np.arange(10) < 3) == 0.5  # all equal: no credit
    assert np.isnan(auc(scores, np.ones(500, bool)))


def test_grouped_auc_weighs_groups_by_their_rows(rows):
    scores, clicked, group = rows
    parts = [group == each for each in np.unique(group)]
    parts = [part for part in parts if 0 < clicked[part].sum() < part.sum()]
    expected = np.average([by_pairs(scores[part], clicked[part]) for part in parts], weights=[p.sum() for p in parts])
    assert grouped_auc(scores, clicked, group * 7 - 3) == pytest.approx(expected)
    assert np.isnan(grouped_auc(scores, clicked, np.arange(500)))


def test_log_loss_is_that_of_the_probabilities(rows):
    scores, clicked, _ = rows
    p = 1 / (1 + np.exp(-scores))
    assert log_loss(scores, clicked) == pytest.approx(-np.log(np.where(clicked, p, 1 - p)).mean())
    assert log_loss(np.array([-1000.0]), np.array([True])) == 1000.0


def test_calibration_is_small_for_true_probabilities_and_large_for_bold_ones():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=50_000)
    clicked = rng.random(50_000) < 1 / (1 + np.exp(-scores))
    assert calibration(scores, clicked) < 0.015
    assert calibration(5 * scores, clicked) > 0.1
    counts, expected, found = reliability(scores, clicked, 10)
    assert counts.sum() == 50_000
    np.testing.assert_allclose(expected, found, atol=0.03)
