"""Rows to lists: the same as sorting them in Python."""

from itertools import chain, pairwise

import numpy as np

from sparkrec.kernels.rankings import by_item, by_place, by_score, first_repeat, numbered, places


def rows(n=400, users=17, seed=0):
    rng = np.random.default_rng(seed)
    user = rng.integers(0, users, n).astype(np.int32)
    return user, rng.integers(-5, 60, n), rng.integers(0, 4, n).astype(np.float64), rng.random(n)


def split(start, values):
    return [values[a:b].tolist() for a, b in pairwise(start)]


def test_ids_are_numbered_as_they_come():
    ids = np.array([7, -3, 7, 1 << 62, 0, -3])
    found, number = numbered(ids)
    assert found.tolist() == [7, -3, 1 << 62, 0]
    assert number.tolist() == [0, 1, 0, 2, 3, 1]
    many = np.random.default_rng(0).integers(-(1 << 62), 1 << 62, 5000).repeat(3)
    found, number = numbered(many)
    assert (found[number] == many).all()
    assert len(found) == len(np.unique(many))
    assert len(numbered(np.zeros(0, np.int64))[0]) == 0


def test_rows_by_place():
    user, item, _, tie = rows()
    order = np.lexsort((tie, user))
    user, item = user[order], item[order]
    place = places(np.append(np.searchsorted(user, np.arange(17)), len(user)))
    mixed = np.random.default_rng(1).permutation(len(user))
    start, found, wrong = by_place(user[mixed], 17, place[mixed], item[mixed])
    assert (found == item).all()
    assert (start == np.append(np.searchsorted(user, np.arange(17)), len(user))).all()
    assert wrong == 0
    for bad in (0, -1, place[mixed][0] + 1000, 1 << 62):
        broken = place[mixed].copy()
        broken[0] = bad
        assert by_place(user[mixed], 17, broken, item[mixed])[2] == 1


def test_rows_by_score_and_of_equal_ones_by_the_draw():
    user, item, score, tie = rows()
    start, items, scores = by_score(user, 17, score, tie, item)
    order = np.lexsort((tie, -score, user))
    assert items.tolist() == item[order].tolist()
    assert scores.tolist() == score[order].tolist()
    assert start.tolist() == np.append(np.searchsorted(user[order], np.arange(17)), len(user)).tolist()


def test_rows_by_item_once_with_the_greatest_gain():
    user, item, gain, _ = rows(users=5)
    start, items, gains = by_item(user, 5, item, gain)
    for each, (own, of) in enumerate(zip(split(start, items), split(start, gains), strict=True)):
        expected = {}
        for i, g in zip(item[user == each].tolist(), gain[user == each].tolist(), strict=True):
            expected[i] = max(expected.get(i, g), g)
        assert dict(zip(own, of, strict=True)) == expected
        assert own == sorted(expected)


def test_the_first_list_with_an_item_twice():
    lists = [[1, 2, 3], [], [2, 1], [4, 5, 4], [6, 6]]
    start = np.append(0, np.cumsum([len(each) for each in lists]))
    assert first_repeat(start, np.array([*chain(*lists)])) == 3
    assert first_repeat(start[:4], np.array([*chain(*lists[:3])])) == -1
    rng = np.random.default_rng(0)
    own = rng.permutation(1 << 16)
    assert first_repeat(np.array([0, len(own)]), own) == -1
    assert first_repeat(np.array([0, len(own) + 1]), np.append(own, own[777])) == 0
