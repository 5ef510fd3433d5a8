"""Rows of any length, one after the other."""

import numpy as np
import pytest

from sparkrec.kernels.csr import located
from sparkrec.kernels.ragged import Ragged, joined_starts, spans, starts_of

ROWS = [[5, 6], [], [7], [8, 9, 1]]


def ragged(rows):
    return Ragged.of_lengths(
        np.array([len(row) for row in rows], np.int64), np.array([each for row in rows for each in row], np.int64)
    )


def rows_of(found):
    return [part.tolist() for part in np.split(found.values, found.start[1:-1])]


@pytest.mark.parametrize("order", [[2, 0, 0, 1], [3], [1, 1], [0, 0]])
def test_rows_are_taken_in_any_order_and_more_than_once(order):
    assert rows_of(ragged(ROWS).take(np.array(order))) == [ROWS[row] for row in order]


def test_no_rows_are_taken():
    none = ragged(ROWS).take(np.zeros(0, np.int64))
    assert none.start.tolist() == [0]
    assert len(none.values) == 0


def test_a_range_of_rows_starts_at_0():
    middle = ragged(ROWS).between(1, 4)
    assert middle.start.tolist() == [0, 0, 1, 4]
    assert rows_of(middle) == ROWS[1:]


def test_values_are_dropped_and_replaced_where_they_are():
    whole = ragged(ROWS)
    odd = whole.keep(whole.values % 2 == 1, 10 * whole.values)
    assert rows_of(odd) == [[50], [], [70], [90, 10]]
    assert odd.rows.tolist() == [0, 2, 3, 3]
    assert ragged(ROWS).arrow().to_pylist() == ROWS


def test_rows_of_several_sets_start_one_after_the_other():
    assert joined_starts([starts_of([2, 0]), starts_of([]), starts_of([1, 3])]).tolist() == [0, 2, 2, 3, 6]
    assert joined_starts([]).tolist() == [0]
    assert rows_of(Ragged.joined([ragged(ROWS), ragged(ROWS[:2])])) == [*ROWS, *ROWS[:2]]


@pytest.mark.parametrize("lengths", [[2, 2], [3, 0], [0, 0], []])
def test_spans_are_places_from_where_each_begins(lengths):
    begin = np.array([10, 3])[: len(lengths)]
    start, places = spans(begin, np.array(lengths, np.int64))
    assert start.tolist() == [0, *np.cumsum(lengths)]
    assert places.tolist() == [first + at for first, n in zip(begin, lengths, strict=True) for at in range(n)]


def test_ids_are_located_among_others_or_said_to_be_none():
    at, known = located(np.array([7, 2, 9, 5]), np.array([2, 5, 7]))
    assert known.tolist() == [True, True, False, True]
    assert at[known].tolist() == [2, 0, 1]
    assert not located(np.array([7, 2]), np.zeros(0, np.int64))[1].any()
