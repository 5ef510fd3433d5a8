import numpy as np
import pytest

from sparkrec.kernels.coding import LEVELS, coded


@pytest.mark.parametrize("n_values", [1, 2, 30, LEVELS])
def test_few_values_come_back_to_the_bit(n_values):
    rng = np.random.default_rng(n_values)
    palette = np.array([0.0, -0.0, np.inf, *rng.normal(size=LEVELS)][:n_values], np.float32)
    values = rng.choice(palette, 10_000)
    levels, codes = coded(values)
    np.testing.assert_array_equal(levels[codes].view(np.int32), values.view(np.int32))


def test_more_values_than_a_byte_has_are_not_coded():
    assert coded(np.arange(LEVELS + 1, dtype=np.float32)) is None
    assert coded(np.zeros(0, np.float32))[1].size == 0


def test_whichever_value_comes_first_none_is_taken_for_another():
    palette = np.random.default_rng(0).normal(size=LEVELS).astype(np.float32)
    for first in range(0, LEVELS, 4):  # of so many, some share a place in the table of what is known
        values = np.roll(palette, first)
        levels, codes = coded(values)
        np.testing.assert_array_equal(levels[codes], values)
