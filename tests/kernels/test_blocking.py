import numpy as np
import pytest

from sparkrec.kernels.als import blocking


def test_numbering_is_what_unique_finds():
    rng = np.random.default_rng(0)
    for ids in (
        rng.integers(-(2**62), 2**62, 5000),
        rng.zipf(1.3, 50_000) * 7919,
        np.arange(20_000)[::-1],
        np.zeros(3, np.int64),
        np.zeros(0, np.int64),
    ):
        distinct, places = blocking.numbered(ids.astype(np.int64))
        expected, inverse = np.unique(ids, return_inverse=True)
        np.testing.assert_array_equal(distinct, expected)
        np.testing.assert_array_equal(places, inverse)


def test_positions_are_those_of_the_ids_and_a_missing_one_is_named():
    distinct = np.array([-5, 2, 9, 11])
    np.testing.assert_array_equal(blocking.positions(np.array([11, -5, 9]), distinct), [3, 0, 2])
    for missing in (-6, 3, 12):
        with pytest.raises(ValueError, match=f"id {missing} is not in the block"):
            blocking.positions(np.array([2, missing]), distinct)


@pytest.mark.parametrize("n", [1, 300, 5_000, 100_000, 2_000_000])
def test_distinct_ids_are_estimated_from_any_parts(n):
    hashes = blocking.hashed(np.arange(n) * 1_000_003)
    counts, registers = np.zeros(64, np.int64), np.zeros(blocking.REGISTERS, np.int32)
    for part in np.array_split(np.repeat(hashes, 2)[: 2 * n], 7):
        part_counts, part_registers = blocking.tally(part, 64)
        counts += part_counts
        registers = np.maximum(registers, part_registers)
    assert blocking.distinct_count(registers) == pytest.approx(n, rel=0.06)
    np.testing.assert_array_equal(counts, 2 * np.bincount(hashes % 64, minlength=64))


def test_ids_in_a_row_spread_over_the_buckets():
    counts, _ = blocking.tally(blocking.hashed(np.arange(1_000_000)), 1000)
    assert 850 < counts.min() < counts.max() < 1150


def test_dealing_is_as_even_as_the_largest_load_allows():
    rng = np.random.default_rng(0)
    loads = rng.zipf(1.5, 4096).clip(max=10**6)
    dealt = blocking.deal(loads, 12)
    per_block = np.bincount(dealt, loads, minlength=12)
    assert per_block.max() <= max(loads.max(), 1.01 * loads.sum() / 12)
    np.testing.assert_array_equal(blocking.deal([3, 3, 2, 2, 2], 2), [0, 1, 0, 1, 0])
