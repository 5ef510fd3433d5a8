"""Accuracy of lists: the formulas as they read, by hand, and what no list may do."""

import math
from itertools import pairwise

import numpy as np
import pytest

from sparkrec.kernels.metrics.accuracy import AT_CUTOFF, WHOLE, accuracy
from sparkrec.kernels.metrics.hits import find_hits

NAMES = [*AT_CUTOFF, *WHOLE]


def lists(*rows):
    return np.cumsum([0, *map(len, rows)]), np.array([item for row in rows for item in row], np.int64)


def value(ranked, relevant, name, k=None, gains=None):
    """Of one user."""
    hits = find_hits(lists(ranked), lists(sorted(relevant)), gains)
    return accuracy(hits, name, None if name in WHOLE else k).item()


def reference(ranked, gains, k):
    """Every metric of one user, as the definitions read."""
    if not gains:
        return dict.fromkeys(NAMES, math.nan)
    n, best = len(gains), min(k, len(gains))
    hits = [rank for rank, item in enumerate(ranked[:k], start=1) if item in gains]

    def dcg(values):
        return sum(each / math.log2(place + 1) for place, each in enumerate(values, start=1))

    def graded(gain):
        ideal = sorted(map(gain, gains.values()), reverse=True)[:k]
        return dcg([gain(gains[item]) if item in gains else 0.0 for item in ranked[:k]]) / dcg(ideal)

    precisions = sum((nth + 1) / rank for nth, rank in enumerate(hits))
    binary = sum(1 / math.log2(rank + 1) for rank in hits)
    return {
        "hit_rate": float(len(hits) > 0),
        "precision": len(hits) / k,
        "recall": len(hits) / n,
        "capped_recall": len(hits) / best,
        "f1": 2 * (len(hits) / k) * (len(hits) / n) / (len(hits) / k + len(hits) / n) if hits else 0.0,
        "mrr": 1 / hits[0] if hits else 0.0,
        "map": precisions / best,
        "map_full": precisions / n,
        "ndcg": binary / dcg([1.0] * best),
        "ndcg_full_ideal": binary / dcg([1.0] * n),
        "ndcg_linear": graded(lambda gain: gain),
        "ndcg_exponential": graded(lambda gain: 2**gain - 1),
        "r_precision": sum(item in gains for item in ranked[:n]) / n,
    }


def planted(seed=0, users=200, items=60):
    """Lists of 0 to 20 items, and relevant ones with gains."""
    rng = np.random.default_rng(seed)
    ranked = [rng.permutation(items)[: rng.integers(0, 21)].tolist() for _ in range(users)]
    relevant = [sorted(rng.choice(items, rng.integers(0, 25), replace=False).tolist()) for _ in range(users)]
    return ranked, [dict(zip(own, rng.integers(1, 6, len(own)) / 2, strict=True)) for own in relevant]


@pytest.mark.parametrize("k", [1, 3, 10, 20, 50])
def test_metrics_are_their_definitions_for_every_user(k):
    ranked, gains = planted()
    values = np.array([gain for own in gains for gain in own.values()])
    hits = find_hits(lists(*ranked), lists(*gains), values)
    expected = [reference(own, wanted, k) for own, wanted in zip(ranked, gains, strict=True)]
    for name in NAMES:
        found = accuracy(hits, name, None if name in WHOLE else k)
        np.testing.assert_allclose(found, [each[name] for each in expected], rtol=1e-12, err_msg=name)


def test_metrics_by_hand():
    # Ranks 1 and 3 are hits; three items are relevant.
    found = {name: [value([7, 1, 9, 2], [4, 7, 9], name, k) for k in (1, 2, 4)] for name in AT_CUTOFF}
    assert found["hit_rate"] == [1, 1, 1]
    assert found["recall"] == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert found["capped_recall"] == pytest.approx([1, 1 / 2, 2 / 3])
    assert found["precision"] == pytest.approx([1, 1 / 2, 2 / 4])
    assert found["ndcg"] == pytest.approx([1, 1 / (1 + 0.63093), (1 + 0.5) / (1 + 0.63093 + 0.5)], rel=1e-5)
    assert found["map"] == pytest.approx([1, 1 / 2, (1 + 2 / 3) / 3])
    assert found["map_full"] == pytest.approx([1 / 3, 1 / 3, (1 + 2 / 3) / 3])
    assert found["mrr"] == [1, 1, 1]
    assert value([7, 1, 9, 2], [4, 7, 9], "r_precision") == pytest.approx(2 / 3)
    gains = np.array([3.0, 1.0, 2.0])  # of 4, 7 and 9
    assert value([7, 1, 9], [4, 7, 9], "ndcg_linear", 2, gains) == pytest.approx(1 / (3 + 2 * 0.63093), rel=1e-5)
    assert value([7, 1, 9], [4, 7, 9], "ndcg_exponential", 2, gains) == pytest.approx(1 / (7 + 3 * 0.63093), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_list_scores_one_and_no_list_more(name):
    assert value([1, 2, 3, 9], [1, 2, 3], name, 3) == pytest.approx(1.0)
    ranked, gains = planted(1)
    values = np.array([gain for own in gains for gain in own.values()])
    found = accuracy(find_hits(lists(*ranked), lists(*gains), values), name, None if name in WHOLE else 5)
    assert (np.isnan(found) == [not own for own in gains]).all()
    assert ((found >= 0) & (found <= 1 + 1e-12))[[bool(own) for own in gains]].all()


def test_some_metrics_never_fall_with_the_cutoff():
    ranked, gains = planted(2)
    hits = find_hits(lists(*ranked), lists(*gains))
    for name in ("hit_rate", "recall", "mrr", "map_full", "ndcg_full_ideal"):
        by_cutoff = [accuracy(hits, name, k) for k in range(1, 21)]
        for smaller, larger in pairwise(by_cutoff):
            assert (np.nan_to_num(larger) >= np.nan_to_num(smaller) - 1e-12).all()


def test_the_order_of_users_changes_nothing():
    ranked, gains = planted(3)
    order = np.random.default_rng(0).permutation(len(ranked))
    for name in AT_CUTOFF:
        found = accuracy(find_hits(lists(*ranked), lists(*gains)), name, 10)
        moved = accuracy(find_hits(lists(*[ranked[at] for at in order]), lists(*[gains[at] for at in order])), name, 10)
        np.testing.assert_array_equal(moved, found[order])


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_list_scores_zero_and_no_relevant_items_nothing(name):
    found = accuracy(find_hits(lists([], [1, 2]), lists([3], [])), name, None if name in WHOLE else 2)
    np.testing.assert_array_equal(found, [0, np.nan])


def test_no_users_have_no_metrics():
    assert accuracy(find_hits(lists(), lists()), "ndcg", 5).shape == (0,)


def test_hits_by_hand():
    hits = find_hits(lists([7, 1, 9], [], [2, 4]), lists([4, 7, 9], [1], [2]))
    assert [each.tolist() for each in hits[:3]] == [[0, 0, 2], [1, 3, 1], [1, 2, 1]]
    assert (hits.n_relevant.tolist(), hits.length.tolist()) == ([3, 1, 1], [3, 0, 2])


def test_what_is_no_list_is_refused():
    with pytest.raises(ValueError, match="ranked: row 1 has item 4 more than once"):
        find_hits(lists([1, 2, 3], [4, 6, 4]), lists([1], [4]))
    with pytest.raises(ValueError, match="relevant: the ids of row 0 are not strictly ascending"):
        find_hits(lists([1, 2]), lists([2, 1]))
    for wrong in ([0.0], [math.nan], [math.inf], [1.0, 1.0]):
        with pytest.raises(ValueError, match="gains: expected a finite number above 0"):
            find_hits(lists([1, 2]), lists([2]), np.array(wrong))


def test_read_only_lists_are_welcome():
    ranked = np.frombuffer(np.array([1, 2], np.int32).tobytes(), np.int32)
    hits = find_hits((np.array([0, 2]), ranked), lists([2]))
    assert accuracy(hits, "mrr", 2).item() == 0.5


@pytest.mark.parametrize("start", [[0, 3], [1, 2], [0, 2, 1, 2]])
def test_lists_that_do_not_end_where_their_items_do_are_refused(start):
    relevant = lists(*([1] for _ in start[1:]))
    with pytest.raises(ValueError, match="ranked: "):
        find_hits((np.array(start), np.array([1, 2])), relevant)


@pytest.mark.parametrize("name", ["ndcg_exponential", "ndcg_linear"])
def test_no_user_vanishes_by_overflow(name):
    """A relevance of 2,000 is worth 2^2000 times as much as one of 1, which no float is."""
    lists = np.array([0, 2, 4]), np.array([5, 6, 5, 6])
    relevant = np.array([0, 2, 4]), np.array([5, 6, 5, 6])
    huge = 1.7e308 if name == "ndcg_linear" else 2000.0
    values = accuracy(find_hits(lists, relevant, np.array([1e-3, huge, 3.0, 1.0])), name, 2)
    gain = (lambda g: g) if name == "ndcg_linear" else (lambda g: 2.0**g - 1)
    second = (gain(3.0) + gain(1.0) / np.log2(3)) / (gain(3.0) + gain(1.0) / np.log2(3))
    np.testing.assert_allclose(values, [1 / np.log2(3), second])
