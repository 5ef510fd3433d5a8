"""Gradients of items and those around them: against autograd, and nothing from beyond the reach or the sequence."""

import numpy as np
import pytest

from sparkrec.kernels.gradients.contexts import Contexts, add_gradients

M, D, NEGATIVES = 30, 6, 3


def contexts(lengths, window, seed=0):
    rng = np.random.default_rng(seed)
    start = np.cumsum([0, *lengths])
    item = rng.integers(M, size=(start[-1], 1 + NEGATIVES)).astype(np.int32)
    reach = rng.integers(1, window + 1, start[-1]).astype(np.int32)
    items, place = np.unique(item, return_inverse=True)
    return Contexts(start, item, reach, place.reshape(item.shape).astype(np.int32), items)


def reference(table, given, bags):
    """The formulas of the module, pair by pair."""
    softplus = pytest.importorskip("torch").nn.functional.softplus
    v, o = table[:, :D], table[:, D:]
    total = 0.0
    for begin, end in zip(given.start[:-1], given.start[1:], strict=True):
        for e in range(begin, end):
            around = [
                v[given.item[j, 0]]
                for j in range(max(begin, e - given.reach[e]), min(end, e + given.reach[e] + 1))
                if j != e
            ]
            for known in [sum(around) / len(around)] if bags and around else around:
                total = total + softplus(-known @ o[given.item[e, 0]])
                total = total + sum(softplus(known @ o[n]) for n in given.item[e, 1:])
    return total


@pytest.mark.torch
@pytest.mark.parametrize("bags", [False, True])
@pytest.mark.parametrize("lengths", [[1, 2, 9, 0, 30], [40, 3]])
def test_gradients_are_those_of_autograd(bags, lengths):
    torch = pytest.importorskip("torch")
    given = contexts(lengths, window=4)
    table = torch.from_numpy(np.random.default_rng(1).normal(size=(M, 2 * D))).requires_grad_()
    expected = 0.5 * reference(table, given, bags)
    expected.backward()
    sums = np.zeros((len(given.items), 2 * D), np.float32)
    found = add_gradients(table.detach().numpy().astype(np.float32), given, bags, 0.5, sums)
    assert found == pytest.approx(float(expected.detach()), rel=1e-5)
    np.testing.assert_allclose(sums, table.grad.numpy()[given.items], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bags", [False, True])
def test_scores_of_any_size_have_a_loss(bags):
    given, sums = contexts([12], window=3), np.zeros((M, 2 * D), np.float32)
    for size in (0.0, 1e4):
        assert np.isfinite(add_gradients(np.full((M, 2 * D), size, np.float32), given, bags, 1.0, sums))
        assert np.isfinite(sums).all()
