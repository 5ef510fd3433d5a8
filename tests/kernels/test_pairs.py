"""Which rows a batch reads, and where the gradient of each goes."""

from itertools import pairwise

import numpy as np
import pytest

from sparkrec.kernels.arrays import Scratch
from sparkrec.kernels.csr import distinct
from sparkrec.kernels.gradients.pairs import Steps, of_step


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("n_ids", [12, 100_000])
def test_distinct_ids_and_their_places(n_ids, dtype):
    ids = np.random.default_rng(0).integers(0, 12, 50).astype(dtype)
    found, place = distinct(ids, n_ids)
    np.testing.assert_array_equal(found, np.unique(ids))
    np.testing.assert_array_equal(found[place], ids)


def test_a_batch_of_nothing_reads_nothing():
    found, place = distinct(np.zeros(0, np.int64), 5)
    assert (len(found), len(place)) == (0, 0)


@pytest.mark.parametrize("n_ids", [7, 100_000])
def test_rows_that_are_not_there_are_refused(n_ids):
    ones = np.ones(2, np.float32)
    with pytest.raises(ValueError, match=rf"users: found 0 to {n_ids}, expected ids in \[0, {n_ids}\)"):
        Steps.of(np.array([0, n_ids]), np.zeros((2, 1), np.int32), ones, ones, np.array([0, 2]), n_ids, 9)
    items = np.array([[1, 2], [-1, 3]], np.int32)
    with pytest.raises(ValueError, match=r"items: found -1 to 3, expected ids in \[0, 9\)"):
        Steps.of(np.array([0, 1]), items, ones, ones, np.array([0, 1, 2]), n_ids, 9)


@pytest.mark.parametrize("n_users", [7, 100_000])
def test_the_pairs_of_each_step_name_its_rows(n_users):
    rng, starts = np.random.default_rng(1), np.array([0, 4, 4, 9])
    user, item = rng.integers(0, 7, 9), rng.integers(0, 5, (9, 3)).astype(np.int32)
    values, confidence = rng.random(9, np.float32), rng.random(9, np.float32)
    steps = Steps.of(user, item, values, confidence, starts, n_users, 5)
    for at, (a, b) in enumerate(pairwise(starts)):
        pairs = of_step(steps, at)
        np.testing.assert_array_equal(pairs.user, user[a:b])
        np.testing.assert_array_equal(pairs.users, np.unique(user[a:b]))
        np.testing.assert_array_equal(pairs.users[pairs.user_place], user[a:b])
        np.testing.assert_array_equal(pairs.items, np.unique(item[a:b]))
        np.testing.assert_array_equal(pairs.items[pairs.item_place], item[a:b])
        np.testing.assert_array_equal(pairs.values, values[a:b])
        np.testing.assert_array_equal(pairs.confidence, confidence[a:b])


def test_scratch_is_zero_whatever_was_there():
    scratch = Scratch()
    scratch.zeros("sums", 4, 3)[:] = 7.0
    again = scratch.zeros("sums", 5, 2)
    assert again.shape == (5, 2)
    assert not again.any()
