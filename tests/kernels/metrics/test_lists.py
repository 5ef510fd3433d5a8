"""Lists by what is known of their items, and all lists together."""

import numpy as np
import pytest

from sparkrec.kernels.metrics import counts
from sparkrec.kernels.metrics.hits import find_hits
from sparkrec.kernels.metrics.lists import (
    category_diversity,
    diversity,
    miscalibration,
    novelty,
    popularity,
    serendipity,
)
from tests.kernels.metrics.test_accuracy import lists


def test_novelty_is_the_mean_surprise_in_bits_of_what_is_there():
    share = np.array([0.5, 0.25, 1.0, 0.125])
    ranked = lists([0, 1, 3], [2], [])
    np.testing.assert_allclose(novelty(ranked, share, 2), [1.5, 0, np.nan])
    np.testing.assert_allclose(novelty(ranked, share, 5), [2, 0, np.nan])
    np.testing.assert_allclose(popularity(ranked, share, 2), [0.375, 1, np.nan])


def test_an_item_that_nobody_has_has_no_novelty():
    with pytest.raises(ValueError, match=r"share: found 0\.0 of item 1, expected one in \(0, 1\]"):
        novelty(lists([0, 1]), np.array([0.5, 0.0]), 2)


def test_diversity_is_one_less_the_mean_cosine_of_pairs():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 4)).astype(np.float32)
    vectors[7] = 0.0
    ranked = [rng.permutation(30)[:n].tolist() for n in (12, 5, 2, 1, 0)]
    norm = np.linalg.norm(vectors, axis=1)
    found = diversity(lists(*ranked), vectors, 5)
    for row, own in enumerate(ranked[:3]):
        first = own[:5]
        cosines = [
            vectors[i] @ vectors[j] / (norm[i] * norm[j]) if norm[i] * norm[j] else 0.0
            for at, i in enumerate(first)
            for j in first[:at]
        ]
        assert found[row] == pytest.approx(1 - np.mean(cosines), abs=1e-6)
    assert np.isnan(found[3:]).all()


def test_category_diversity_is_one_less_the_mean_overlap_of_pairs():
    rng = np.random.default_rng(0)
    categories = [rng.choice(6, rng.integers(0, 4), replace=False).tolist() for _ in range(20)]
    ranked = [rng.permutation(20)[:n].tolist() for n in (12, 5, 2, 1, 0)]
    found = category_diversity(lists(*ranked), lists(*categories), 5)
    for row, own in enumerate(ranked[:3]):
        pairs = [(set(categories[i]), set(categories[j])) for at, i in enumerate(own[:5]) for j in own[:5][:at]]
        overlap = [len(a & b) / len(a | b) if a | b else 0.0 for a, b in pairs]
        assert found[row] == pytest.approx(1 - np.mean(overlap))
    assert np.isnan(found[3:]).all()


def test_serendipity_is_of_hits_that_popularity_does_not_explain():
    places = np.array([1, 2, 3, 4])
    ranked, relevant = lists([3, 0], [0, 3], []), lists([0, 3], [0], [1])
    found = serendipity(ranked, find_hits(ranked, relevant), places, 2)
    # Item 3, the least popular, is first: (4 - 1) / 4; item 0, the most popular, is expected where it stands.
    np.testing.assert_allclose(found, [0.75 / 2, 0, np.nan])


def test_all_lists_together():
    ranked = [[0, 1], [0, 2], [0, 1]]
    n = np.bincount([item for own in ranked for item in own], minlength=5)
    assert counts.coverage(n, 5) == 0.6
    assert counts.entropy(n) == pytest.approx(-(0.5 * np.log2(0.5) + np.log2(1 / 3) / 3 + np.log2(1 / 6) / 6))
    common = [len(set(a) & set(b)) / 2 for at, a in enumerate(ranked) for b in ranked[:at]]
    assert counts.personalisation(n, 3, 2) == pytest.approx(1 - np.mean(common))
    differences = np.abs(n[:, None] - n[None]).sum() / (2 * 5 * n.sum())  # half of the relative mean difference
    assert counts.gini(n, 5) == pytest.approx(differences)
    assert counts.gini(np.full(7, 3), 7) == pytest.approx(0.0)
    assert counts.gini(np.array([5]), 4) == pytest.approx(0.75)


def test_nothing_together():
    nothing = np.zeros(3, np.int64)
    assert counts.coverage(nothing, 3) == 0.0
    for value in (counts.entropy(nothing), counts.gini(nothing, 3), counts.personalisation(nothing, 1, 2)):
        assert np.isnan(value)


def test_miscalibration_is_how_far_tastes_are_from_those_before():
    categories = lists([0], [1], [0, 1], [])
    before = lists([0, 0, 0, 1], [0], [3], [])
    ranked = lists([0, 1], [0, 2], [0], [1])
    found = miscalibration(ranked, before, categories, 2)
    p, q = np.array([0.75, 0.25]), 0.99 * np.array([0.5, 0.5]) + 0.01 * np.array([0.75, 0.25])
    assert found[0] == pytest.approx((p * np.log2(p / q)).sum())
    assert found[1] == pytest.approx(-np.log2(0.99 * 0.75 + 0.01))
    assert np.isnan(found[2:]).all()  # nothing is known of their taste
    in_proportion = miscalibration(lists([0, 0, 0, 1]), lists([0, 0, 0, 1]), categories, 4)
    assert in_proportion[0] == pytest.approx(0.0)
