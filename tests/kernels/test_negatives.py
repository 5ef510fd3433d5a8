"""Negatives for training: never a positive, by the distribution asked for, the same whoever draws them."""

import numpy as np
import pytest

from sparkrec.kernels.gradients.negatives import Alias, Positives, draw_negatives, is_positive, popularity

LISTS = np.array([0, 3, 3, 5]), np.array([0, 2, 9, 1, 4], np.int32)
POSITIVES = Positives.of(LISTS, 3, 10)


def test_no_negative_is_a_positive_and_all_others_come():
    rows = np.repeat([0, 1, 2], 2000)
    drawn = draw_negatives(7, 0, rows, POSITIVES, Alias.of(np.ones(10)), 3)
    for row, positives in enumerate(([0, 2, 9], [], [1, 4])):
        assert set(drawn[rows == row].ravel()) == set(range(10)) - set(positives)


@pytest.mark.parametrize("power", [0.0, 0.75, 1.0])
def test_they_come_as_often_as_the_distribution_says(power):
    counts = np.array([0, 1, 5, 20, 100, 3, 3, 50])
    alias = popularity(counts, power)
    positives = Positives.of((np.array([0, 1]), np.array([3], np.int32)), 1, 8)
    drawn = draw_negatives(1, 0, np.zeros(200_000, np.int64), positives, alias, 1)
    expected = (counts + 1.0) ** power
    np.testing.assert_allclose(np.exp(alias.log_probability), expected / expected.sum())
    expected[3] = 0
    shares = np.bincount(drawn.ravel(), minlength=8) / drawn.size
    np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.004)


def test_a_draw_does_not_depend_on_what_is_drawn_with_it():
    alias, rows = Alias.of(np.ones(10)), np.array([0, 1, 2, 0, 1])
    whole = draw_negatives(3, 100, rows, POSITIVES, alias, 4)
    parts = [draw_negatives(3, 100 + at, rows[at : at + 1], POSITIVES, alias, 4) for at in range(5)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    assert (whole != draw_negatives(4, 100, rows, POSITIVES, alias, 4)).any()
    assert (whole != draw_negatives(3, 101, rows, POSITIVES, alias, 4)).any()


def test_membership_is_that_of_sets():
    rng = np.random.default_rng(0)
    expected = rng.random((40, 700)) < rng.random((40, 1)) ** 4  # from hardly any to nearly all
    expected[3], expected[4] = False, True
    lists = np.append(0, expected.sum(1).cumsum()), np.nonzero(expected)[1].astype(np.int32)
    found = is_positive(np.arange(40), np.arange(700, dtype=np.int32), Positives.of(lists, 40, 700))
    np.testing.assert_array_equal(found, expected)


def test_items_that_nobody_has_can_be_left_out():
    counts = np.array([0, 3, 0, 1, 5, 0, 2])
    alias = popularity(counts, 0.0, unseen=False)
    nothing = Positives.of((np.zeros(2, np.int64), np.zeros(0, np.int32)), 1, 7)
    drawn = draw_negatives(0, 0, np.zeros(20_000, np.int64), nothing, alias, 1)
    shares = np.bincount(drawn[:, 0], minlength=7) / len(drawn)
    np.testing.assert_allclose(shares, (counts > 0) / 4, atol=0.015)
    every = Positives.of((np.array([0, 4]), np.array([1, 3, 4, 6], np.int32)), 1, 7)
    with pytest.raises(ValueError, match="row 0 has every item"):
        draw_negatives(0, 0, np.array([0]), every, alias, 1)


def test_what_cannot_be_drawn_is_refused():
    every = Positives.of((np.array([0, 2]), np.array([0, 1], np.int32)), 1, 2)
    with pytest.raises(ValueError, match="row 0 has every item, expected one left to draw"):
        draw_negatives(0, 0, np.array([0]), every, Alias.of(np.ones(2)), 1)
    with pytest.raises(ValueError, match="weights: expected at least one above 0, none below, all finite"):
        Alias.of(np.array([1.0, -1.0]))
    with pytest.raises(ValueError, match=r"positives: found 0 to 9, expected ids in \[0, 9\)"):
        Positives.of(LISTS, 3, 9)
