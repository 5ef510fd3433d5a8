"""The batches of item2vec: which events, in which order, how far they look, and who is not around them."""

from itertools import chain, pairwise

import numpy as np
import pytest

pytest.importorskip("torch")

from sparkrec.models.item2vec import Item2vecSettings
from sparkrec.training.batches.contexts import chances
from sparkrec.training.collective import Alone
from sparkrec.training.loop import Job, Trainer
from tests.training.examples import plain, write_shards

pytestmark = pytest.mark.torch

ITEMS, USERS = 40, 51  # odd: two shards of different size


def bags(seed=0):
    """What each user did; item 0 is in all of them."""
    rng = np.random.default_rng(seed)
    return [np.append(0, 1 + rng.permutation(ITEMS - 1)[: rng.integers(1, 12)]) for _ in range(USERS)]


def batches(folder, training=None, **settings):
    users = np.repeat(np.arange(USERS), [len(bag) for bag in bags()])
    given = {"sequences": list(enumerate(bags())), "length": 20}
    shards = write_shards(folder / "s", users, np.concatenate(bags()), ITEMS, of_group=2, ordered=given)
    own = plain(**{"negatives": 3, "popularity_power": 0.75, "batch": 8, **(training or {})})
    job = Job(Item2vecSettings(dim=4, training=own, **settings), shards, None, str(folder), 0)
    return Trainer(job, Alone()).batches


def sequences(batches, epoch):
    """Of each user, as the kernel reads them."""
    found = {}
    for batch in batches.epoch(epoch):
        start, item = batch.contexts.start, batch.contexts.item
        for first, last in pairwise(start.tolist()):
            users = set(batches.users[batch.users[first:last]].tolist())
            assert len(users) <= 1
            found |= {user: item[first:last, 0].tolist() for user in users}
    return found


def test_an_epoch_has_every_event_in_its_order(tmp_path):
    found = sequences(batches(tmp_path), 0)
    assert found == {user: bag.tolist() for user, bag in enumerate(bags())}


def test_bags_are_shuffled_anew_in_each_epoch(tmp_path):
    shuffled = batches(tmp_path, shuffle=True)
    first, second = sequences(shuffled, 0), sequences(shuffled, 1)
    for user, bag in enumerate(bags()):
        assert sorted(first[user]) == sorted(second[user]) == sorted(bag.tolist())
    assert sum(first[user] != second[user] for user in range(USERS)) > USERS // 2
    assert sequences(shuffled, 0) == first


def test_each_event_looks_to_some_place_in_the_window(tmp_path):
    reach = np.concatenate([batch.contexts.reach for batch in batches(tmp_path, window=4).epoch(0)])
    assert set(reach.tolist()) == {1, 2, 3, 4}
    assert np.bincount(reach)[1:].min() > 0.7 * len(reach) / 4


def test_frequent_items_stay_seldom(tmp_path):
    counts = np.bincount(np.concatenate(bags()), minlength=ITEMS)
    expected = chances(counts, 0.01)
    share = counts[0] / counts.sum()
    assert expected[0] == pytest.approx(np.sqrt(0.01 / share) + 0.01 / share)
    assert expected[counts / counts.sum() < 0.005].tolist() == [1.0] * int((counts / counts.sum() < 0.005).sum())
    some, kept = batches(tmp_path, subsample=0.01), np.zeros(ITEMS)
    for epoch in range(40):
        kept += np.bincount([*chain(*sequences(some, epoch).values())], minlength=ITEMS)
    assert kept[0] / (40 * counts[0]) == pytest.approx(expected[0], abs=0.03)
    assert kept.sum() / 40 == pytest.approx((counts * expected).sum(), rel=0.03)


def test_negatives_are_none_of_the_user(tmp_path):
    own, drawn = [set(bag.tolist()) for bag in bags()], np.zeros(ITEMS)
    given = batches(tmp_path)
    for batch in given.epoch(0):
        for user, negatives in zip(given.users[batch.users], batch.contexts.item[:, 1:].tolist(), strict=True):
            assert not own[user].intersection(negatives)
        drawn += np.bincount(batch.contexts.item[:, 1:].ravel(), minlength=ITEMS)
    assert drawn[0] == 0
    assert (drawn[1:] > 0).all()


def test_places_name_the_rows_that_are_read(tmp_path):
    for batch in batches(tmp_path, shuffle=True).epoch(0):
        contexts = batch.contexts
        np.testing.assert_array_equal(contexts.items[contexts.place], contexts.item)
        assert (np.diff(contexts.items) > 0).all()


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"loss": "bpr"}, "training.loss of item2vec: found bpr, expected bce"),
        ({"device": "gpu"}, "training.device of item2vec: found gpu, expected cpu"),
        ({"negatives": 0}, "training.negatives of item2vec: found 0, expected 1 or more"),
    ],
)
def test_what_has_no_kernel_is_refused(training, message):
    with pytest.raises(ValueError, match=message):
        Item2vecSettings(training=plain(**training))


def test_chances_to_stay_are_those_of_word2vec_by_hand():
    root = np.sqrt(0.01 / 0.9) + 0.01 / 0.9
    np.testing.assert_allclose(chances(np.array([900, 96, 4]), 0.01), [root, np.sqrt(0.01 / 0.096) + 0.01 / 0.096, 1.0])
    np.testing.assert_array_equal(chances(np.array([1, 0]), 2.0), [1.0, 1.0])
