"""Batches: every example once an epoch, the same steps for everyone, whatever fails said in a sentence."""

from dataclasses import replace

import numpy as np
import pytest

from sparkrec import storage
from sparkrec.errors import InputError, TrainError
from sparkrec.kernels.gradients.negatives import popularity
from sparkrec.shards import Shards
from sparkrec.training.batches.pairs import Batches
from sparkrec.training.batches.prefetch import Prefetched
from tests.training.examples import planted, write_shards

USERS, ITEMS, _ = planted()


def batches(shards, process_rank=0, size=1, **changes):
    given = {"batch": 50, "negatives": 3, "alias": popularity(shards.item_counts, 0.5), "seed": 1, **changes}
    return Batches(shards, process_rank, size, **given)


def pairs(some, made):
    """(user, item) of the positives."""
    return [
        (int(some.users[user]), int(item))
        for batch in made
        for user, item in zip(batch.users, batch.items[:, 0], strict=True)
    ]


@pytest.fixture
def shards(tmp_path):
    return write_shards(tmp_path / "shards", USERS, ITEMS, 80, of_group=3, groups=2)


def test_an_epoch_has_every_example_once_and_the_next_another_order(shards):
    some = batches(shards)
    first, second = (pairs(some, some.epoch(number)) for number in (0, 1))
    assert sorted(first) == sorted(second) == sorted(zip(USERS.tolist(), ITEMS.tolist(), strict=True))
    assert first != second
    assert first == pairs(some, some.epoch(0))


@pytest.mark.parametrize("size", [2, 3])
def test_processes_share_the_steps_of_one(shards, size):
    alone, others = batches(shards), [batches(shards, rank, size) for rank in range(size)]
    whole, shares = list(alone.epoch(0)), [list(other.epoch(0)) for other in others]
    assert {len(share) for share in shares} == {len(whole)} == {alone.steps()}
    for step, batch in enumerate(whole):
        assert batch.total == len(batch.users) == sum(len(share[step].users) for share in shares)
        assert abs(len(batch.users) - 50) <= 6
        mine = {(user, *items) for user, *items in zip(alone.users[batch.users], *batch.items.T, strict=True)}
        theirs = set()
        for other, share in zip(others, shares, strict=True):
            theirs |= {
                (user, *items)
                for user, *items in zip(other.users[share[step].users], *share[step].items.T, strict=True)
            }
        assert mine == theirs  # the same negatives, too


def test_negatives_are_no_positives_of_their_user(shards):
    some = batches(shards)
    known = set(zip(USERS.tolist(), ITEMS.tolist(), strict=True))
    for batch in some.epoch(0):
        assert batch.items.shape[1] == 4
        drawn = {
            (int(some.users[user]), int(item))
            for user, row in zip(batch.users, batch.items, strict=True)
            for item in row[1:]
        }
        assert not drawn & known


def test_an_epoch_goes_on_where_it_stopped(shards):
    some = batches(shards)
    whole = list(some.epoch(4))
    for first in (1, 7, len(whole) - 1):
        rest = list(some.epoch(4, first))
        assert len(rest) == len(whole) - first
        for one, two in zip(rest, whole[first:], strict=True):
            np.testing.assert_array_equal(one.items, two.items)


def test_positives_of_the_batch_that_a_user_has_are_no_negatives(shards):
    some = batches(shards, negatives=0, in_batch=True)
    known = set(zip(USERS.tolist(), ITEMS.tolist(), strict=True))
    for batch in some.epoch(0):
        for row, user in enumerate(some.users[batch.users]):
            for column, item in enumerate(batch.items[:, 0]):
                assert batch.false_negatives[row, column] == ((int(user), int(item)) in known)


def test_a_shard_may_be_empty_and_there_may_be_more_processes_than_users(tmp_path):
    shards = write_shards(tmp_path / "few", np.array([1, 1, 2]), np.array([0, 1, 3]), 5, of_group=4)
    shares = [list(batches(shards, rank, 4, batch=2).epoch(0)) for rank in range(4)]
    assert [sum(len(batch.users) for batch in share) for share in shares] == [0, 2, 1, 0]
    assert {len(share) for share in shares} == {2}
    with pytest.raises(InputError, match="found 4 a group, expected one or more for each of 5 processes"):
        list(batches(shards, 0, 5).epoch(0))


def test_a_user_with_every_item_is_in_no_batch_and_counted(tmp_path):
    users, items = np.append(USERS, np.full(80, 60)), np.append(ITEMS, np.arange(80))
    shards = write_shards(tmp_path / "all", users, items, 80, of_group=3, groups=2)
    some = batches(shards)
    found = some.without_negatives()
    assert found.sum(0).tolist() == [1, 80]
    some = replace(some, left_out=found[:, 1])
    made = list(some.epoch(0))
    assert sorted(pairs(some, made)) == sorted(zip(USERS.tolist(), ITEMS.tolist(), strict=True))
    assert [batch.total for batch in made] == [len(batch.users) for batch in made]
    assert 60 in some.users
    for changes in (
        {"softmax": True},
        {"negatives": 0},
        {"negatives": 0, "in_batch": True},
    ):  # nothing is lacking there
        some = batches(shards, **changes)
        assert some.without_negatives().sum() == 0
        assert sum(len(batch.users) for batch in some.epoch(0)) == len(users)


def test_what_is_missing_cut_off_or_changed_is_named(shards):
    file = f"{shards.folder}/shard-00001.parquet"
    data = storage.read(file)
    storage.write(file, data[:-10])
    with pytest.raises(
        InputError, match=r"shard-00001.parquet has \d+ bytes and checksum [0-9a-f]{12}, expected \d+ and"
    ):
        list(batches(shards).epoch(0))
    storage.delete(file)
    with pytest.raises(InputError, match="cannot read .*shard-00001.parquet"):
        list(batches(shards).epoch(0))
    storage.delete(f"{shards.folder}/manifest.json")
    with pytest.raises(InputError, match=r"no shards in .*: expected a manifest.json"):
        Shards.open(shards.folder)


def test_batches_made_ahead_are_the_same_and_their_errors_come_through(shards):
    some = batches(shards)
    ahead = [batch.items for batch in Prefetched(lambda: some.epoch(0))]
    for one, two in zip(ahead, some.epoch(0), strict=True):
        np.testing.assert_array_equal(one, two.items)

    def fails():
        yield next(some.epoch(0))
        raise TrainError("no more")

    made = iter(Prefetched(fails))
    next(made)
    with pytest.raises(TrainError, match="no more"):
        next(made)
