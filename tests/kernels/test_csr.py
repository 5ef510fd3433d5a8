import numpy as np
import pytest

from sparkrec.kernels.arrays import checked_lists, frozen
from sparkrec.kernels.csr import Csr, distinct_in_parts


def test_entries_end_up_by_row_then_column_whatever_their_order():
    rng = np.random.default_rng(0)
    cells = rng.permutation(40 * 30)[:300]
    rows, columns = cells // 30, cells % 30
    values = rng.normal(size=300).astype(np.float32)
    csr = Csr.from_pairs(rows, columns, values, 40)
    dense = np.zeros((40, 30), np.float32)
    dense[rows, columns] = values
    found_rows = np.repeat(np.arange(40), np.diff(csr.indptr))
    assert (csr.n_rows, csr.nnz) == (40, 300)
    np.testing.assert_array_equal(np.lexsort((csr.indices, found_rows)), np.arange(300))
    np.testing.assert_array_equal(dense[found_rows, csr.indices], csr.values)
    assert [part.dtype for part in csr] == [np.int64, np.int32, np.float32]


def test_a_cell_that_occurs_twice_stays_twice_in_its_order():
    csr = Csr.from_pairs(np.array([1, 0, 1, 1]), np.array([2, 0, 2, 1]), np.array([7, 8, 9, 6]), 3)
    np.testing.assert_array_equal(csr.indptr, [0, 1, 4, 4])
    np.testing.assert_array_equal(csr.indices, [0, 1, 2, 2])
    np.testing.assert_array_equal(csr.values, [8, 6, 7, 9])


def test_no_entries_are_empty_rows():
    csr = Csr.from_pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32), 3)
    np.testing.assert_array_equal(csr.indptr, [0, 0, 0, 0])
    assert csr.nnz == 0


def test_a_range_of_rows_is_a_csr_of_its_own():
    csr = Csr.from_pairs(np.array([0, 1, 1, 2]), np.array([3, 1, 2, 0]), np.arange(4), 4)
    middle = csr.rows(1, 3)
    np.testing.assert_array_equal(middle.indptr, [0, 2, 3])
    np.testing.assert_array_equal(middle.indices, [1, 2, 0])
    np.testing.assert_array_equal(middle.values, [1, 2, 3])
    with pytest.raises(ValueError, match=r"rows \[3, 5\): expected a range inside \[0, 4\)"):
        csr.rows(3, 5)


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([0, 3], [0, 0], r"rows: found 0 to 3, expected ids in \[0, 3\)"),
        ([0, -1], [0, 0], r"rows: found -1 to 0"),
        ([0, 1], [0, 2**31], r"columns: found 0 to 2147483648"),
        ([0], [0, 1], r"found 1, 2 and 2 entries"),
    ],
)
def test_entries_that_do_not_fit_are_refused(rows, columns, message):
    with pytest.raises(ValueError, match=message):
        Csr.from_pairs(np.array(rows), np.array(columns), np.ones(2), 3)


@pytest.mark.parametrize(
    ("indptr", "message"),
    [([1, 2], "start at 0"), ([0, 2, 1, 3], "never fall"), ([0, 2], "end at 3"), ([], "an empty array")],
)
def test_an_indptr_that_does_not_fit_its_indices_is_refused(indptr, message):
    csr = Csr(np.array(indptr, np.int64), np.zeros(3, np.int32), np.ones(3, np.float32))
    with pytest.raises(ValueError, match=message):
        csr.checked(1, "ratings")


def test_an_index_past_the_last_column_never_reaches_compiled_code():
    csr = Csr(np.array([0, 1]), np.array([5], np.int32), np.ones(1, np.float32))
    with pytest.raises(ValueError, match=r"ratings indices: found 5 to 5, expected ids in \[0, 5\)"):
        csr.checked(5, "ratings")


def test_an_array_that_would_lose_digits_is_refused():
    with pytest.raises(TypeError, match="ids: found int64, expected int32"):
        frozen(np.arange(3), np.int32, "ids")
    with pytest.raises(ValueError, match="ids: found 2 dimensions, expected 1"):
        frozen(np.zeros((2, 2), np.int32), np.int32, "ids")


def test_freezing_neither_copies_nor_locks_what_already_fits():
    array = np.arange(4.0)
    view = frozen(array, np.float64, "array")
    assert np.shares_memory(view, array)
    assert not view.flags.writeable
    assert array.flags.writeable


def test_misaligned_arrow_memory_is_read_right():
    buffer = b"\x00" + np.arange(5, dtype=np.float32).tobytes()
    misaligned = np.frombuffer(buffer[:1] + buffer[1:], np.uint8)[1:].view(np.float32)
    np.testing.assert_array_equal(frozen(misaligned, np.float32, "values"), np.arange(5))


def test_lists_may_fall_between_rows_but_not_inside_one():
    indptr = np.array([0, 0, 2, 2, 4, 4])
    checked_lists((indptr, np.array([5, 9, 1, 2])), 5, "seen", np.int64)
    with pytest.raises(ValueError, match="seen: the ids of row 3 are not strictly ascending"):
        checked_lists((indptr, np.array([5, 9, 2, 2])), 5, "seen", np.int64)
    with pytest.raises(ValueError, match="seen: found 5 rows, expected 4"):
        checked_lists((indptr, np.array([5, 9, 1, 2])), 4, "seen", np.int64)


@pytest.mark.parametrize("n_ids", [10, 1 << 20])  # by counting, and by comparing
@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_different_ids_of_each_part(kind, n_ids):
    ids, starts = np.array([7, 2, 7, 9, 2, 2, 0], kind), np.array([0, 4, 4, 6, 7])
    found, bounds, place = distinct_in_parts(ids, starts, n_ids)
    assert found.tolist() == [2, 7, 9, 2, 0]
    assert bounds.tolist() == [0, 3, 3, 4, 5]
    assert place.tolist() == [1, 0, 1, 2, 0, 0, 0]
    with pytest.raises(ValueError, match="items: found 0 to 9"):
        distinct_in_parts(ids, starts, 9, "items")
