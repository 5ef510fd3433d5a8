"""What holds for any lists."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkrec.kernels.metrics.accuracy import AT_CUTOFF, WHOLE, accuracy
from sparkrec.kernels.metrics.hits import find_hits
from tests.kernels.metrics.test_accuracy import lists

ITEMS = st.integers(0, 30)
LIST = st.lists(ITEMS, max_size=12, unique=True)
USERS = st.lists(st.tuples(LIST, st.dictionaries(ITEMS, st.integers(1, 4), max_size=10)), min_size=1, max_size=6)
K = st.integers(1, 14)


def hits_of(users):
    gains = [own[item] for _, own in users for item in sorted(own)]
    return find_hits(
        lists(*[ranked for ranked, _ in users]), lists(*[sorted(own) for _, own in users]), np.array(gains, float)
    )


@settings(max_examples=60, deadline=None)
@given(USERS, K)
def test_metrics_are_between_0_and_1_and_defined_where_something_is_relevant(users, k):
    hits = hits_of(users)
    for name in (*AT_CUTOFF, *WHOLE):
        value = accuracy(hits, name, k if name in AT_CUTOFF else None)
        there = np.array([len(own) > 0 for _, own in users])
        assert (np.isnan(value) == ~there).all()
        assert ((value[there] >= 0) & (value[there] <= 1 + 1e-12)).all(), name


@settings(max_examples=60, deadline=None)
@given(USERS, st.permutations(range(6)))
def test_the_order_of_users_is_nothing(users, order):
    order = [at for at in order if at < len(users)]
    for name in AT_CUTOFF:
        value = accuracy(hits_of(users), name, 5)[order]
        np.testing.assert_array_equal(value, accuracy(hits_of([users[at] for at in order]), name, 5))


@settings(max_examples=60, deadline=None)
@given(USERS, K)
def test_more_places_find_no_less(users, k):
    hits = hits_of(users)
    for name in ("hit_rate", "recall", "mrr", "map_full", "ndcg_full_ideal"):
        less, more = (np.nan_to_num(accuracy(hits, name, each)) for each in (k, k + 1))
        assert (more >= less - 1e-12).all(), name


@settings(max_examples=60, deadline=None)
@given(USERS, K)
def test_a_relevant_item_that_moves_up_costs_nothing(users, k):
    better = []
    for ranked, own in users:
        at = next((r for r in range(1, len(ranked)) if ranked[r] in own and ranked[r - 1] not in own), None)
        moved = list(ranked)
        if at is not None:
            moved[at - 1], moved[at] = moved[at], moved[at - 1]
        better.append((moved, own))
    before, after = hits_of(users), hits_of(better)
    for name in AT_CUTOFF:
        old, new = (np.nan_to_num(accuracy(hits, name, k)) for hits in (before, after))
        assert (new >= old - 1e-12).all(), name
