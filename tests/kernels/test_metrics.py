import math

import numpy as np
import pytest

from sparkrec.kernels.metrics import METRICS, auc_from_counts, novelty, ranking_metrics
from sparkrec.kernels.topk import count_above


def lists(*rows):
    return np.cumsum([0, *map(len, rows)]), np.array([item for row in rows for item in row], np.int64)


def reference(ranked, relevant, k):
    """Every metric of one user, as the definitions read."""
    if not relevant:
        return dict.fromkeys(METRICS, math.nan)
    top = [item for item in ranked[:k] if item != -1]
    hits = [rank for rank, item in enumerate(top, start=1) if item in relevant]
    best_possible = min(k, len(relevant))
    return {
        "hit_rate": float(len(hits) > 0),
        "recall": len(hits) / len(relevant),
        "precision": len(hits) / k,
        "ndcg": sum(1 / math.log2(r + 1) for r in hits) / sum(1 / math.log2(r + 2) for r in range(best_possible)),
        "map": sum((n + 1) / r for n, r in enumerate(hits)) / best_possible,
        "mrr": 1 / hits[0] if hits else 0.0,
    }


def test_metrics_are_their_definitions_for_every_user_and_cutoff():
    rng = np.random.default_rng(0)
    ranked = np.stack([rng.permutation(60)[:20] for _ in range(200)])
    ranked[rng.random(200) < 0.3, 13:] = -1
    ranked[5] = -1
    relevant = [sorted(rng.choice(60, rng.integers(0, 25), replace=False).tolist()) for _ in range(200)]
    cutoffs = [1, 3, 10, 20]
    found = ranking_metrics(ranked, lists(*relevant), cutoffs)
    assert tuple(found) == METRICS
    for name, values in found.items():
        expected = [
            [reference(r.tolist(), set(s), k)[name] for k in cutoffs] for r, s in zip(ranked, relevant, strict=True)
        ]
        np.testing.assert_allclose(values, expected, rtol=1e-12, err_msg=name)


def test_metrics_by_hand():
    # Ranks 1 and 3 are hits; three items are relevant.
    found = ranking_metrics(np.array([[7, 1, 9, 2]]), lists([4, 7, 9]), [1, 2, 4])
    assert found["hit_rate"].tolist() == [[1, 1, 1]]
    np.testing.assert_allclose(found["recall"], [[1 / 3, 1 / 3, 2 / 3]])
    np.testing.assert_allclose(found["precision"], [[1, 1 / 2, 2 / 4]])
    np.testing.assert_allclose(found["ndcg"], [[1, 1 / (1 + 0.63093), (1 + 0.5) / (1 + 0.63093 + 0.5)]], rtol=1e-5)
    np.testing.assert_allclose(found["map"], [[1, 1 / 2, (1 + 2 / 3) / 3]])
    np.testing.assert_allclose(found["mrr"], [[1, 1, 1]])


def test_a_perfect_ranking_scores_one():
    found = ranking_metrics(np.array([[1, 2, 3, 9]]), lists([1, 2, 3]), [3])
    assert {name: values.item() for name, values in found.items()} == dict.fromkeys(METRICS, 1.0)


def test_padding_never_counts_as_a_hit():
    padded = ranking_metrics(np.array([[5, -1, -1]]), lists([-1, 5]), [3])
    assert padded["recall"].item() == 0.5


def test_an_empty_ranking_scores_zero_and_no_ground_truth_has_no_score():
    found = ranking_metrics(np.array([[-1, -1], [1, 2]]), lists([3], []), [1, 2])
    for values in found.values():
        np.testing.assert_array_equal(values, [[0, 0], [np.nan, np.nan]])


def test_no_users_have_no_metrics():
    found = ranking_metrics(np.zeros((0, 5), np.int64), lists(), [1, 5])
    assert {values.shape for values in found.values()} == {(0, 2)}


def test_a_repeated_item_would_count_twice_and_is_refused():
    with pytest.raises(ValueError, match="ranked: row 1 ranks item 4 more than once"):
        ranking_metrics(np.array([[1, 2, 3], [4, 6, 4]]), lists([1], [4]), [3])


def test_a_cutoff_longer_than_the_rankings_would_understate_and_is_refused():
    for cutoff in (0, 3):
        with pytest.raises(ValueError, match=rf"cutoffs: found {cutoff}, expected 1 to 2"):
            ranking_metrics(np.array([[1, 2]]), lists([1]), [1, cutoff])


def test_ground_truth_must_be_sorted():
    with pytest.raises(ValueError, match="relevant: the ids of row 0 are not strictly ascending"):
        ranking_metrics(np.array([[1, 2]]), lists([2, 1]), [1])


def test_read_only_int32_rankings_are_welcome():
    ranked = np.frombuffer(np.array([[1, 2]], np.int32).tobytes(), np.int32).reshape(1, 2)
    assert ranking_metrics(ranked, lists([2]), [2])["mrr"].item() == 0.5


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


def test_novelty_is_the_mean_surprise_in_bits_of_what_is_there():
    popularity = np.array([0.5, 0.25, 1.0, 0.125])
    found = novelty(np.array([[0, 1, 3], [2, -1, -1], [-1, -1, -1]]), popularity, [1, 2, 3])
    np.testing.assert_allclose(found, [[1, 1.5, 2], [0, 0, 0], [np.nan] * 3])


def test_an_item_of_unknown_popularity_has_no_novelty():
    with pytest.raises(ValueError, match=r"popularity: found 0\.0 for item 1, expected a share in \(0, 1\]"):
        novelty(np.array([[0, 1]]), np.array([0.5, 0.0]), [2])
    with pytest.raises(ValueError, match="ranked: found item 2, expected ids below 2"):
        novelty(np.array([[0, 2]]), np.array([0.5, 0.5]), [2])
