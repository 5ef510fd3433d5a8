import numpy as np
import pytest

from sparkrec.kernels.sampling import sample_negatives, sample_negatives_reference


def lists(*rows):
    return np.cumsum([0, *map(len, rows)]), np.array([item for row in rows for item in row], np.int64)


@pytest.fixture
def world():
    """(user ids, items seen, catalogue) of 60 users: one has seen everything, one all but two, one nothing"""
    rng = np.random.default_rng(0)
    catalogue = np.sort(rng.choice(10**10, 80, replace=False))
    elsewhere = np.setdiff1d(rng.choice(10**10, 20), catalogue)
    everything = np.concatenate([catalogue, elsewhere])
    seen = [np.sort(rng.choice(everything, rng.integers(0, 70), replace=False)) for _ in range(57)]
    seen += [catalogue, catalogue[2:], catalogue[:0]]
    return rng.choice(2**60, 60, replace=True) - 2**59, lists(*seen), catalogue


@pytest.mark.parametrize("n", [0, 1, 20, 80, 100])
def test_the_fast_sample_is_the_readable_one(world, n):
    for seed in (0, 7, -1, 2**63):
        np.testing.assert_array_equal(sample_negatives(seed, *world, n), sample_negatives_reference(seed, *world, n))


def test_negatives_are_new_to_the_user_known_to_the_catalogue_and_distinct(world):
    _, (indptr, seen), catalogue = world
    sample = sample_negatives(1, *world, 30)
    for row, items in enumerate(sample):
        items = items[items >= 0]
        left = np.setdiff1d(catalogue, seen[indptr[row] : indptr[row + 1]])
        assert len(np.unique(items)) == len(items) == min(30, len(left))
        assert np.isin(items, left).all()
    assert (sample[57] == -1).all()
    assert set(sample[58]) == {catalogue[0], catalogue[1], -1}


def test_a_users_negatives_do_not_depend_on_the_batch_it_is_in(world):
    users, (indptr, seen), catalogue = world
    whole = sample_negatives(3, *world, 10)
    for row in reversed(range(len(users))):
        own = lists(seen[indptr[row] : indptr[row + 1]])
        np.testing.assert_array_equal(sample_negatives(3, users[row : row + 1], own, catalogue, 10)[0], whole[row])


def test_a_longer_sample_begins_with_the_shorter(world):
    np.testing.assert_array_equal(sample_negatives(3, *world, 50)[:, :20], sample_negatives(3, *world, 20))


def test_seed_and_user_each_change_the_sample():
    users, catalogue, nothing = np.arange(100), np.arange(10_000), lists(*([] for _ in range(100)))
    one, other = (sample_negatives(seed, users, nothing, catalogue, 10) for seed in (1, 2))
    assert (one == other).mean() < 0.01
    assert len(np.unique(one[:, 0])) > 95


def test_samples_stay_what_they_were():
    """Stored evaluations compare only as long as the draws do: these may never change."""
    sample = sample_negatives(42, np.array([0, 1, 10**12]), lists([0, 1], [], [5]), np.arange(1000), 5)
    assert sample.tolist() == [[917, 344, 456, 866, 52], [420, 660, 55, 984, 573], [330, 100, 780, 472, 189]]


def test_every_unseen_item_is_equally_likely_in_every_place():
    n_users, seen = 40_000, [2, 5, 6]
    sample = sample_negatives(0, np.arange(n_users), lists(*([seen] * n_users)), np.arange(10), 3)
    expected = n_users / 7
    for place in range(3):
        counts = np.bincount(sample[:, place], minlength=10)
        assert (counts[seen] == 0).all()
        chi_square = np.sum((np.delete(counts, seen) - expected) ** 2 / expected)
        assert chi_square < 22.5  # 6 degrees of freedom: exceeded by one seed in a thousand
    pairs = np.unique(sample[:, :2], axis=0, return_counts=True)[1]
    assert len(pairs) == 42
    assert np.sum((pairs - n_users / 42) ** 2 / (n_users / 42)) < 74.7  # 41 degrees of freedom: likewise


def test_read_only_arrays_are_welcome(world):
    users, seen, catalogue = world

    def arrow(array):
        return np.frombuffer(array.tobytes(), array.dtype)

    locked = sample_negatives(5, arrow(users), (arrow(seen[0]), arrow(seen[1])), arrow(catalogue), 9)
    np.testing.assert_array_equal(locked, sample_negatives(5, *world, 9))


def test_lists_that_are_not_sorted_are_refused():
    with pytest.raises(ValueError, match="catalogue: expected strictly ascending item ids"):
        sample_negatives(0, np.array([1]), lists([]), np.array([1, 3, 3]), 1)
    with pytest.raises(ValueError, match="seen: the ids of row 0 are not strictly ascending"):
        sample_negatives(0, np.array([1]), lists([3, 1]), np.array([1, 3]), 1)
    with pytest.raises(ValueError, match="seen: found 2 rows, expected 1"):
        sample_negatives(0, np.array([1]), lists([1], [3]), np.array([1, 3]), 1)
