"""Area under the ROC curve from counts."""

import math

import numpy as np
import pytest

from sparkrec.kernels.metrics.auc import auc_from_counts
from sparkrec.kernels.topk import count_above
from tests.kernels.metrics.test_accuracy import lists


def test_auc_is_the_share_of_pairs_in_the_right_order():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 12, size=(40, 50)).astype(np.float32)  # ties between all kinds of items
    kinds = rng.choice(["seen", "relevant", "irrelevant"], size=(40, 50), p=[0.2, 0.1, 0.7])
    relevant = lists(*map(np.flatnonzero, kinds == "relevant"))
    exclude = lists(*map(np.flatnonzero, kinds != "irrelevant"))
    target_scores = scores[np.repeat(np.arange(40), np.diff(relevant[0])), relevant[1]]
    counts = count_above(scores, relevant[0], target_scores, exclude[0], exclude[1].astype(np.int32))
    auc = auc_from_counts(*counts, relevant[0], 50 - np.diff(exclude[0]))
    for user in range(40):
        good, bad = scores[user][kinds[user] == "relevant"], scores[user][kinds[user] == "irrelevant"]
        pairs = [1.0 if g > b else 0.5 if g == b else 0.0 for g in good for b in bad]
        assert auc[user] == pytest.approx(np.mean(pairs) if pairs else math.nan, nan_ok=True)


def test_auc_by_hand():
    # Two relevant items among four others: one beats all, one is beaten by two and ties with one.
    auc = auc_from_counts(np.array([0, 2]), np.array([0, 1]), np.array([0, 2, 2]), np.array([4, 4]))
    np.testing.assert_allclose(auc, [(1 + 1.5 / 4) / 2, np.nan])
    nobody_to_beat = auc_from_counts(np.array([0]), np.array([0]), np.array([0, 1]), np.array([0]))
    assert np.isnan(nobody_to_beat).all()


def test_more_counted_than_candidates_is_refused():
    with pytest.raises(ValueError, match="more counted than there are irrelevant candidates"):
        auc_from_counts(np.array([3]), np.array([2]), np.array([0, 1]), np.array([4]))
