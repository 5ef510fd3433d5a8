"""Random rows belong to their id."""

import numpy as np

from sparkrec.kernels.random import GOLDEN, mix64, normal_rows


def test_a_row_depends_on_seed_and_id_alone():
    ids = np.array([3, 2**40, 0, 17])
    rows = normal_rows(5, ids, 8)
    np.testing.assert_array_equal(normal_rows(5, ids[::-1], 8), rows[::-1])
    assert not np.array_equal(normal_rows(6, ids, 8), rows)


def test_rows_are_standard_normal_and_uncorrelated():
    rows = normal_rows(0, np.arange(20_000), 6).astype(float)
    assert abs(rows.mean()) < 0.01
    np.testing.assert_allclose(np.cov(rows.T), np.eye(6), atol=0.04)
    assert abs(np.corrcoef(rows[:-1, 0], rows[1:, 0])[0, 1]) < 0.02


def test_the_numbers_are_those_of_splitmix64():
    with np.errstate(over="ignore"):
        states = np.uint64(1234567) + np.arange(1, 6, dtype=np.uint64) * GOLDEN
        assert mix64(states).tolist() == [
            6457827717110365317,
            3203168211198807973,
            9817491932198370423,
            4593380528125082431,
            16408922859458223821,
        ]
