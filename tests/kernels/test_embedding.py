"""Updates of touched rows: torch's rule for them, nothing for the others."""

import numpy as np
import pytest

from sparkrec.kernels.gradients import embedding


@pytest.mark.parametrize("n_rows", [5, 100_000])
def test_gradients_of_a_row_add_up(n_rows):
    rng = np.random.default_rng(0)
    ids = rng.choice(np.array([0, 3, n_rows - 1]), 50)
    gradients = rng.normal(size=(50, 7)).astype(np.float32)
    keys, sums = embedding.summed(ids, gradients, n_rows)
    np.testing.assert_array_equal(keys, np.unique(ids))
    expected = np.zeros((n_rows, 7))
    np.add.at(expected, ids, gradients)
    np.testing.assert_allclose(sums, expected[keys], rtol=1e-5, atol=1e-5)


def test_no_gradients_are_no_rows_and_foreign_ids_are_refused():
    keys, sums = embedding.summed(np.zeros(0, np.int64), np.zeros((0, 3), np.float32), 4)
    assert (len(keys), sums.shape) == (0, (0, 3))
    with pytest.raises(ValueError, match=r"ids: found 4 to 4, expected ids in \[0, 4\)"):
        embedding.summed(np.array([4]), np.zeros((1, 3), np.float32), 4)
    with pytest.raises(ValueError, match="gradients: found 2 rows, expected one for each of 1 ids"):
        embedding.summed(np.array([1]), np.zeros((2, 3), np.float32), 4)


RULES = {
    "sgd": (lambda t, p: t.optim.SGD(p, 0.1, momentum=0.9), (0.9, 0.0, 0.0, 0.0)),
    "adagrad": (lambda t, p: t.optim.Adagrad(p, 0.1, eps=1e-8), (0.0, 0.0, 1e-8, 0.0)),
    "rmsprop": (lambda t, p: t.optim.RMSprop(p, 0.1, alpha=0.9), (0.0, 0.9, 1e-8, 0.0)),
    "adam": (lambda t, p: t.optim.Adam(p, 0.1), (0.9, 0.999, 1e-8, 0.0)),
    "adamw": (lambda t, p: t.optim.AdamW(p, 0.1, weight_decay=0.05), (0.9, 0.999, 1e-8, 0.05)),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", RULES)
def test_a_touched_row_moves_as_torch_moves_it_and_no_other_does(name):
    torch = pytest.importorskip("torch")
    make, numbers = RULES[name]
    rule = embedding.Rule(embedding.OPTIMIZERS[name], *numbers)
    rng = np.random.default_rng(1)
    table = rng.normal(size=(9, 5)).astype(np.float32)
    untouched = table.copy()
    ids = np.array([1, 4, 8])
    theirs = torch.nn.Parameter(torch.tensor(table[ids]))
    optimizer, first, second = make(torch, [theirs]), np.zeros_like(table), np.zeros_like(table)
    for step in range(1, 6):
        gradients = rng.normal(size=(3, 5)).astype(np.float32)
        theirs.grad = torch.tensor(gradients)
        optimizer.step()
        embedding.update(table, first, second, ids, gradients, rule, step, 0.1)
    np.testing.assert_allclose(table[ids], theirs.detach().numpy(), rtol=1e-4, atol=1e-5)
    others = np.setdiff1d(np.arange(9), ids)
    np.testing.assert_array_equal(table[others], untouched[others])
