"""Layers that several models have, beside torch's own."""

import pytest

torch = pytest.importorskip("torch")

from sparkrec.models.base.layers import BatchNorm, perceptron
from sparkrec.models.base.recommender import Sizes
from sparkrec.models.base.tables import EmbeddingTable
from sparkrec.models.nfm import NFM, NfmSettings

pytestmark = pytest.mark.torch


def test_batch_norm_is_that_of_torch_in_training_and_afterwards():
    torch.manual_seed(0)
    ours, theirs = BatchNorm(3), torch.nn.BatchNorm1d(3)
    for _ in range(4):
        values = 2.0 + 3.0 * torch.randn(6, 5, 3)
        torch.testing.assert_close(ours(values), theirs(values.reshape(-1, 3)).reshape(6, 5, 3), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.mean, theirs.running_mean, rtol=1e-5, atol=1e-5, check_dtype=False)
    torch.testing.assert_close(ours.variance.data, theirs.running_var, rtol=1e-4, atol=1e-4)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(values[0]), theirs(values[0]), rtol=1e-4, atol=1e-4)


def test_what_batch_norm_has_seen_is_kept_and_not_learned():
    layer = BatchNorm(2)
    assert {name for name, each in layer.named_parameters() if each.requires_grad} == {"scale", "shift"}
    assert {"mean", "variance"} < {*layer.state_dict()}


def test_statistics_are_of_the_rows_of_all_processes():
    values = torch.tensor([[1.0], [3.0], [8.0]])
    rest = torch.tensor([[4.0], [9.0]])
    sums = torch.tensor([rest.sum(), rest.square().sum(), len(rest)])
    layer = BatchNorm(1)
    layer.sum_over_processes = lambda own: own + sums
    whole = BatchNorm(1)(torch.cat((values, rest)))
    torch.testing.assert_close(layer(values), whole[:3])


def test_a_layer_is_normed_before_it_is_cut_off_and_dropped_behind_that():
    kinds = [type(each).__name__ for each in perceptron([4, 3, 2], dropout=0.5, batch_norm=True)]
    assert kinds == ["Linear", "BatchNorm", "ReLU", "Dropout"] * 2
    assert [type(each).__name__ for each in perceptron([4, 3])] == ["Linear", "ReLU"]


def test_nfm_drops_what_was_pooled_after_its_norm():
    settings = NfmSettings(dim=4, layers=[3], dropout=0.5, batch_norm=True)
    kinds = [type(each).__name__ for each in NFM(settings, Sizes(2, 2)).deep]
    assert kinds == ["BatchNorm", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]


def test_squares_are_of_what_was_read_since_the_last_time_column_by_column():
    table = EmbeddingTable(4, 3)
    table.weight.copy_(torch.arange(12.0).view(4, 3))
    table.shrinks = torch.tensor([1.0, 0.5, 0.0])
    table(torch.tensor([0, 2]))
    table(torch.tensor([[1], [2]]))
    expected = sum(first**2 + 0.5 * second**2 for first, second in ((0, 1), (6, 7), (3, 4), (6, 7)))
    assert float(table.squares().detach()) == expected
    table.take()
    table(torch.tensor([1]))
    assert float(table.squares().detach()) == 3**2 + 0.5 * 4**2
