"""Biases are the solution of one ridge regression, reached by turns."""

import numpy as np
import pytest

from sparkrec.errors import TrainError
from sparkrec.spark.algorithms.bias import BiasSettings, biases, fit_bias
from sparkrec.spark.data.fit_inputs import FitInputs
from sparkrec.spark.in_place import carry_out

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("everywhere")]

N_USERS, N_ITEMS = 30, 20


@pytest.fixture(scope="module")
def ratings():
    rng = np.random.default_rng(0)
    users, items = np.nonzero(rng.random((N_USERS - 1, N_ITEMS - 1)) < 0.4)
    taste, quality = rng.normal(0, 0.5, N_USERS), rng.normal(0, 1, N_ITEMS)
    values = (3.5 + taste[users] + quality[items] + rng.normal(0, 0.5, len(users))).astype(np.float32)
    return list(zip(users, items, values, strict=True))


def ridge(ratings, settings):
    """Biases by solving the normal equations, dense."""
    users, items, values = (np.array(each) for each in zip(*ratings, strict=True))
    x = np.zeros((len(values), N_USERS + N_ITEMS))
    x[np.arange(len(values)), users] = x[np.arange(len(values)), N_USERS + items] = 1
    penalty = [settings.user_regularization] * N_USERS + [settings.item_regularization] * N_ITEMS
    mean = values.mean(dtype=np.float64)
    solved = np.linalg.solve(x.T @ x + np.diag(penalty), x.T @ (values - mean))
    return mean, solved[:N_USERS], solved[N_USERS:]


def test_the_fit_is_the_dense_ridge_solution(dataset_of, scores_of, ratings):
    settings = BiasSettings(user_regularization=2.0, item_regularization=5.0, iterations=30)
    dataset = dataset_of(ratings, N_USERS, N_ITEMS, explicit=True)
    model = fit_bias(settings, FitInputs(dataset, dataset.train, 0, "unused"))
    mean, users, items = ridge(ratings, settings)
    # the last user and the last item have no rating: their ridge bias is 0
    assert users[-1] == items[-1] == 0
    np.testing.assert_allclose(scores_of(model), mean + users[:, None] + items, atol=1e-5)


def test_a_few_sweeps_are_near_the_solution_however_the_rows_lie(dataset_of, ratings):
    settings = BiasSettings(user_regularization=1.0, item_regularization=1.0, iterations=4)
    shuffled = [ratings[at] for at in np.random.default_rng(1).permutation(len(ratings))]
    train = dataset_of(shuffled, N_USERS, N_ITEMS, partitions=5).train

    def plan(rows):
        mean, users, items = biases(rows, settings)
        return mean, users.table(), items.table("item")

    mean, *found = carry_out("bias", plan, train)
    expected = ridge(ratings, settings)
    assert mean == pytest.approx(expected[0], abs=1e-6)
    for table, bias in zip(found, expected[1:], strict=True):
        np.testing.assert_allclose(table["bias"], bias[table[0].to_numpy()], atol=1e-2)


@pytest.mark.parametrize("n", [0, 5])
def test_ratings_that_do_not_differ_are_refused(dataset_of, n):
    dataset = dataset_of([(0, item, 1.0) for item in range(n)], 1, 5)
    found = "there is no rating" if n == 0 else "all ratings are 1"
    with pytest.raises(TrainError, match=f"bias: {found}.* feedback.kind explicit"):
        fit_bias(BiasSettings(), FitInputs(dataset, dataset.train, 0, "unused"))
