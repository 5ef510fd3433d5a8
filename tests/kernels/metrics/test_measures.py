"""Metrics by name, as a sum and a weight of each user."""

import numpy as np
import pytest

from sparkrec.kernels.metrics.measures import LIFT, Batch, ItemFacts, NotOneRelevant, Relevant, is_of_items, sums
from sparkrec.kernels.metrics.sampled import corrected
from tests.kernels.metrics.test_accuracy import lists

NO_ITEMS = ItemFacts(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64), np.zeros((0, 1), np.float32), lists())


def batch_of(ranked, relevant, scores=(), clicked=(), rated=None, ratings=(), listed=None, before=None):
    relevant = lists(*relevant)
    nobody = lists(*([] for _ in ranked))
    known = Relevant(relevant, np.ones(len(relevant[1])), None, rated or nobody, np.array(ratings, float))
    own = np.array(scores, float), np.array(clicked, bool)
    return Batch(lists(*ranked), *own, known, listed or nobody, before or nobody)


def test_errors_are_summed_over_what_was_ranked_and_rated():
    batch = batch_of(
        [[2, 5], [5], []], [[2], [], []], [3.0, 1.0, 9.0], rated=lists([2, 5], [7], [1]), ratings=[1.0, 2.0, 4.0, 4.0]
    )
    total, weight = sums(batch, [("rmse", None), ("mae", None)], NO_ITEMS, 0)
    np.testing.assert_allclose(total, [[4 + 1, 2 + 1], [0, 0], [0, 0]])  # of squares, and of sizes
    np.testing.assert_array_equal(weight, [[2, 2], [0, 0], [0, 0]])


def test_a_mean_over_users_weighs_each_that_has_something_relevant_as_one():
    batch = batch_of([[1, 2], [3], [4], [1]], [[2], [3, 9], [], [7]])
    total, weight = sums(batch, [("hit_rate", 1), ("recall", 2)], NO_ITEMS, 0)
    np.testing.assert_allclose(total, [[0, 1], [1, 0.5], [0, 0], [0, 0]])
    np.testing.assert_array_equal(weight, [[1, 1], [1, 1], [0, 0], [1, 1]])


def test_a_corrected_metric_is_what_the_sampled_place_is_worth_among_so_many():
    batch = batch_of([[4, 1, 7, 8], [3, 5, 6], [9, 2], [2]], [[1], [3], [5], []])
    total, weight = sums(batch, [("corrected_hit_rate", 1)], NO_ITEMS, 100)
    of_three, of_two = (corrected(np.array([1.0]), 100, negatives) for negatives in (3, 2))
    np.testing.assert_allclose(total[:, 0], [of_three[1], of_two[0], 0, 0])  # below all that was listed: nothing
    np.testing.assert_array_equal(weight[:, 0], [1, 1, 1, 0])


def test_two_relevant_items_among_sampled_ones_are_refused_and_counted():
    batch = batch_of([[1, 2], [3], [5, 4]], [[1, 2], [3], [4, 5]])
    with pytest.raises(NotOneRelevant, match="candidates: found 2 users with more than one relevant item") as refused:
        sums(batch, [("corrected_hit_rate", 1)], NO_ITEMS, 100)
    assert refused.value.users == 2


def test_the_lift_of_popularity_is_over_what_users_had_before():
    share = np.array([0.5, 0.25, 1.0])
    items = NO_ITEMS._replace(ids=np.array([10, 20, 30]), share=share)
    listed, before = lists([2, 0], [1], [2]), lists([0, 1, 1], [], [0])
    batch = batch_of([[30, 10], [20], [30]], [[10], [20], []], listed=listed, before=before)
    total, weight = sums(batch, [(LIFT, 2)], items, 0)
    np.testing.assert_allclose(total[:, 0], [0.75 - 1 / 3, 0, 0])
    np.testing.assert_allclose(weight[:, 0], [1 / 3, 0, 0])


def test_what_is_of_some_of_the_relevant_items():
    assert is_of_items("recall")
    assert is_of_items("rmse")
    assert not is_of_items("novelty")
    assert not is_of_items(LIFT)
    assert not is_of_items("log_loss")
