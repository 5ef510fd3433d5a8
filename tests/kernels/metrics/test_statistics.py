"""Bootstrap weights, the sign test, and the correction for many tests."""

import math

import numpy as np
import pytest

from sparkrec.kernels.metrics.statistics import holm, mean_test, normal_p, poisson_weights, sign_test


def test_weights_are_poisson_numbers_of_the_user_alone():
    weights = poisson_weights(3, np.arange(4000), 50)
    assert weights.mean() == pytest.approx(1.0, abs=0.01)
    assert weights.var() == pytest.approx(1.0, abs=0.02)
    for count in range(4):
        assert (weights == count).mean() == pytest.approx(math.exp(-1) / math.factorial(count), abs=0.005)
    np.testing.assert_array_equal(poisson_weights(3, np.array([17, 5]), 50), weights[[17, 5]])
    assert (poisson_weights(4, np.arange(4000), 50) != weights).mean() > 0.5
    assert abs(np.corrcoef(weights[:, 0], weights[:, 1])[0, 1]) < 0.06
    assert poisson_weights(3, np.arange(5), 0).shape == (5, 0)


def test_a_mean_196_hundredths_of_its_error_from_zero_has_a_chance_of_one_in_twenty():
    spread = np.tile([1.0, -1.0], 50) * math.sqrt(0.99)  # of standard deviation 1, and the mean of 100 has error .1
    for shift in (0.196, -0.196):
        mean, p = mean_test(shift + spread)
        assert mean == pytest.approx(shift)
        assert p == pytest.approx(0.05, abs=1e-5)


def test_differences_that_are_all_the_same_are_sure_and_none_is_no_difference():
    assert mean_test(np.full(4, 0.5)) == (0.5, 0.0)
    assert mean_test(np.full(4, -0.5)) == (-0.5, 0.0)
    assert mean_test(np.zeros(4)) == (0.0, 1.0)
    assert math.isnan(normal_p(0.5, math.nan))  # of one user nobody knows the error


def test_signs_by_hand():
    assert sign_test(5, 0) == sign_test(0, 5) == pytest.approx(2 / 2**5)
    assert sign_test(1, 4) == pytest.approx(2 * (1 + 5) / 2**5)
    assert sign_test(3, 3) == 1.0
    assert sign_test(0, 0) == 1.0


def test_many_tests_by_hand():
    found = holm(np.array([0.01, 0.04, 0.03, np.nan, 0.5]))
    np.testing.assert_allclose(found, [0.04, 0.09, 0.09, np.nan, 0.5])
    assert holm(np.array([0.6, 0.9])).tolist() == [1.0, 1.0]
