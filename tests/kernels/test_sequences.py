"""Cutting events into sequences."""

import numpy as np
import pytest

from sparkrec.kernels.sequences import Cutter, Latest


def by_hand(events, length, targets, gap):
    """(user, session, items) of each sequence, of events (user, item, time) in order."""
    sessions, last = [], 0
    for user, item, time in events:
        if not sessions or sessions[-1][0] != user:
            sessions.append((user, 0, [item]))
        elif gap is not None and time - last > gap:
            sessions.append((user, sessions[-1][1] + 1, [item]))
        else:
            sessions[-1][2].append(item)
        last = time
    found = []
    for user, session, items in sessions:
        if len(items) < 2:
            continue
        if targets is None:
            found.append((user, session, items[-length - 1 :]))
        elif len(items) < length + targets:
            found.append((user, session, items))
        else:
            most = length + targets
            found += [(user, session, items[at : at + most]) for at in range(len(items) - most + 1)]
    return found


def cut(events, cuts, **how):
    cutter, columns = Cutter(**how), np.array(events, np.int64).reshape(-1, 3).T
    found = [*(cutter.feed(*part) for part in np.split(columns, cuts, axis=1)), cutter.end()]
    return [
        (int(user), int(session), each.items.between(at, at + 1).values.tolist())
        for each in found
        for at, (user, session) in enumerate(zip(each.user, each.session, strict=True))
    ]


@pytest.mark.parametrize("gap", [None, 3])
@pytest.mark.parametrize(("length", "targets"), [(3, None), (1, None), (3, 2), (1, 1)])
@pytest.mark.parametrize("seed", range(4))
def test_pieces_of_any_size_are_cut_as_one(seed, length, targets, gap):
    rng = np.random.default_rng(seed)
    events = []
    for user in range(30):
        times = np.cumsum(rng.integers(0, 6, rng.integers(1, 14)))
        events += [(user, int(rng.integers(100)), int(time)) for time in times]
    expected = by_hand(events, length, targets, gap)
    for n in (0, 1, 5, len(events) - 1):
        cuts = np.sort(rng.choice(np.arange(1, len(events)), n, replace=False))
        assert cut(events, cuts, length=length, targets=targets, gap=gap) == expected


def test_nothing_gives_nothing():
    assert cut([], [], length=3) == []


def test_a_user_of_many_events_is_never_held_whole():
    cutter = Cutter(length=4, targets=1)
    for first in range(0, 10_000, 1000):
        item = np.arange(first, first + 1000)
        found = cutter.feed(np.zeros(1000, np.int64), item, item)
        assert len(found.user) == 1000 - 4 * (first == 0)
        assert len(cutter._item) == 4
    assert not len(cutter.end().user)


@pytest.mark.parametrize("gap", [None, 3])
@pytest.mark.parametrize("length", [1, 4])
def test_the_latest_events_are_those_after_the_last_pause_however_they_come(length, gap):
    rng = np.random.default_rng(1)
    events = [
        (user, int(rng.integers(50)), int(time))
        for user in range(12)
        for time in np.cumsum(rng.integers(1, 6, rng.integers(1, 9)))
    ]
    expected = {}
    for user, item, time in events:
        before = expected.get(user)
        kept = [] if before is None or (gap is not None and time - before[-1][1] > gap) else before
        expected[user] = [*kept, (item, time)]
    expected = {user: [item for item, _ in kept[-length:]] for user, kept in expected.items()}
    for size in (1, 3, len(events)):
        latest, found = Latest(length, gap), {}
        parts = [events[at : at + size] for at in range(0, len(events), size)]
        for users, items in [*(latest.feed(*np.array(part).T) for part in parts), latest.end()]:
            found |= {int(user): items.between(at, at + 1).values.tolist() for at, user in enumerate(users)}
        assert found == expected
