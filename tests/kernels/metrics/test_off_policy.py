"""Off-policy estimates find what a policy would have earned."""

import numpy as np
import pytest

from sparkrec.kernels.metrics.off_policy import doubly_robust, ips, snips


def logged(n=200_000, seed=0):
    """Two contexts, three actions; a logging policy, another one, and mean rewards."""
    rng = np.random.default_rng(seed)
    logging = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
    other = np.array([[0.1, 0.2, 0.7], [0.5, 0.4, 0.1]])
    reward = np.array([[0.1, 0.5, 0.8], [0.9, 0.2, 0.3]])
    context = rng.integers(0, 2, n)
    action = (rng.random((n, 1)) > np.cumsum(logging[context], axis=1)).sum(axis=1)
    got = (rng.random(n) < reward[context, action]).astype(float)
    weight = other[context, action] / logging[context, action]
    return context, action, got, weight, other, reward, (other * reward).sum(axis=1).mean()


def value(sums):
    return sums[0].sum() / sums[1].sum()


def test_all_estimate_the_value_of_the_policy():
    context, action, got, weight, other, reward, truth = logged()
    right = reward[context, action], (other * reward)[context].sum(axis=1)
    wrong = np.full(len(got), 0.5), np.full(len(got), 0.5)
    assert abs(got.mean() - truth) > 0.05  # what was earned is not it
    for found in (ips(weight, got), snips(weight, got), doubly_robust(weight, got, *right)):
        assert value(found) == pytest.approx(truth, abs=0.01)
    assert value(doubly_robust(weight, got, *wrong)) == pytest.approx(truth, abs=0.01)  # the weights are right
    assert value(doubly_robust(0.3 * weight, got, *right)) == pytest.approx(truth, abs=0.01)  # the model is right
    assert value(snips(0.3 * weight, got)) == pytest.approx(truth, abs=0.01)
    assert abs(value(ips(0.3 * weight, got)) - truth) > 0.2


def test_a_good_model_of_rewards_makes_less_noise():
    context, action, got, weight, other, reward, _ = logged()
    right = reward[context, action], (other * reward)[context].sum(axis=1)
    assert doubly_robust(weight, got, *right)[0].var() < 0.7 * ips(weight, got)[0].var()


def test_weights_by_hand():
    assert value(ips(np.array([2.0, 0.0]), np.array([1.0, 1.0]))) == 1.0
    assert value(snips(np.array([3.0, 1.0]), np.array([1.0, 0.0]))) == 0.75
