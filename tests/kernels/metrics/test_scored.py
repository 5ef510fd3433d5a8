"""Scores of candidates, by hand and by pairs."""

import numpy as np
import pytest

from sparkrec.kernels.metrics.scored import auc, auc_shares, errors, grouped_auc, log_loss
from tests.kernels.metrics.test_accuracy import lists


def drawn(users=30, seed=0):
    """Lists with scores, best first, of which some items are relevant, as others are that are not listed."""
    rng = np.random.default_rng(seed)
    ranked, scores, relevant = [], [], []
    for _ in range(users):
        n = rng.integers(0, 12)
        ranked.append(rng.permutation(40)[:n])
        scores.append(-np.sort(-rng.integers(0, 5, n) / 2.0))
        relevant.append(np.sort(rng.choice(40, rng.integers(0, 8), replace=False)))
    clicked = [np.isin(own, good) for own, good in zip(ranked, relevant, strict=True)]
    return ranked, scores, relevant, clicked


def test_auc_is_the_share_of_pairs_in_order():
    ranked, scores, relevant, clicked = drawn()
    of = lists(*relevant)
    share = auc_shares(lists(*ranked), np.concatenate(scores), of, np.concatenate(clicked))
    total, weight = auc(share, of)
    for user in range(len(ranked)):
        bad = scores[user][~clicked[user]]
        listed = dict(zip(ranked[user].tolist(), scores[user], strict=True))
        good = [listed.get(item, -np.inf) for item in relevant[user].tolist()]
        pairs = [1.0 if g > b else 0.5 if g == b else 0.0 for g in good for b in bad]
        assert weight[user] == (len(good) > 0)
        if len(good):
            assert total[user] == pytest.approx(np.mean(pairs) if pairs else 0.5)


def test_where_nothing_irrelevant_is_listed_nobody_knows_what_is_better():
    ranked, relevant = lists([4, 2], [5, 1], []), lists([2, 4, 9], [5, 9], [3])
    share = auc_shares(ranked, np.array([2.0, 1.0, 3.0, 0.0]), relevant, np.array([True, True, True, False]))
    np.testing.assert_array_equal(share, [0.5, 0.5, 0.5, 1.0, 0.0, 0.5])  # an item that is not listed is below all


def test_grouped_auc_weighs_lists_with_both_kinds_by_their_rows():
    ranked, scores, _, clicked = drawn()
    total, weight = grouped_auc(lists(*ranked)[0], np.concatenate(scores), np.concatenate(clicked))
    for user in range(len(ranked)):
        good, bad = scores[user][clicked[user]], scores[user][~clicked[user]]
        if not len(good) or not len(bad):
            assert weight[user] == 0.0
            continue
        wins = np.mean((good[:, None] > bad) + 0.5 * (good[:, None] == bad))
        assert weight[user] == len(ranked[user])
        assert total[user] / weight[user] == pytest.approx(wins)


def test_losses_are_sums_over_rows():
    ranked, scores, relevant, clicked = drawn()
    of, flat = lists(*ranked), np.concatenate(scores)
    total, rows = log_loss(of[0], flat, np.concatenate(clicked))
    p = 1 / (1 + np.exp(-flat))
    each = -np.log(np.where(np.concatenate(clicked), p, 1 - p))
    whose = np.repeat(np.arange(len(ranked)), rows.astype(int))
    np.testing.assert_allclose(total, np.bincount(whose, each, minlength=len(ranked)))

    ratings = [item % 5 + 1.0 for own in relevant for item in own]
    for power in (1, 2):
        total, rows = errors(of, flat, lists(*relevant), np.array(ratings), power)
        for user in range(len(ranked)):
            own = [
                abs(score - (item % 5 + 1.0)) ** power
                for item, score in zip(ranked[user], scores[user], strict=True)
                if item in relevant[user]
            ]
            assert rows[user] == len(own)
            assert total[user] == pytest.approx(sum(own))
