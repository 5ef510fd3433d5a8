"""Metrics of the catalogue from sampled candidates: less wrong than what they correct."""

import numpy as np
import pytest

from sparkrec.kernels.metrics.measures import worth
from sparkrec.kernels.metrics.sampled import corrected, place_chances


def test_places_are_binomial():
    chances = place_chances(np.array([0, 40, 99]), 100, 8)
    assert chances.shape == (3, 9)
    np.testing.assert_allclose(chances.sum(axis=1), 1.0)
    assert chances[0, 0] == 1.0  # nothing is above the best item
    assert chances[2, 8] == 1.0
    np.testing.assert_allclose(chances[1] @ np.arange(9), 8 * 40 / 99)


def test_estimates_are_nearer_to_the_truth_than_what_they_correct():
    rng = np.random.default_rng(0)
    catalogue, negatives, users, k = 2000, 99, 40_000, 20
    above = np.minimum(rng.geometric(1 / 300, users) - 1, catalogue - 1)
    place = rng.binomial(negatives, above / (catalogue - 1)) + 1
    truth = np.mean(above < k)
    naive = np.mean(place <= k)
    estimate = worth("recall", k, catalogue, negatives)[place - 1].mean()
    assert abs(estimate - truth) < 0.15 * abs(naive - truth)
    wanted = (np.arange(catalogue) < k).astype(float)
    chances = place_chances(np.arange(catalogue), catalogue, negatives)
    bias = [((chances @ corrected(np.ones(k), catalogue, negatives, gamma) - wanted) ** 2).sum() for gamma in (0, 0.1)]
    assert bias[0] < bias[1]


def test_what_is_linear_in_the_place_is_estimated_without_bias():
    catalogue, negatives = 300, 20
    linear = np.arange(catalogue, dtype=float)  # places above: as the mean rank and AUC are
    values = corrected(linear, catalogue, negatives, gamma=0.0)
    chances = place_chances(np.arange(catalogue), catalogue, negatives)
    np.testing.assert_allclose(chances @ values, linear, atol=1e-3)


def test_with_as_many_candidates_as_items_nothing_is_corrected_much():
    values = worth("mrr", 10, 101, 100)
    assert values[0] == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize("negatives", [0, 100, 101])
def test_more_negatives_than_items_are_refused(negatives):
    with pytest.raises(ValueError, match=f"found {negatives} of a catalogue of 100, expected fewer"):
        corrected(np.ones(5), 100, negatives)
