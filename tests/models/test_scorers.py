"""Files of scorers are read as they were first written."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from safetensors.numpy import save

from sparkrec.fields import FieldSchema
from sparkrec.models.base.recommender import Sizes
from sparkrec.models.base.scorers import load_scorer
from sparkrec.models.fm import FmSettings
from sparkrec.models.neumf import NeumfSettings
from sparkrec.models.sasrec import SasrecSettings

LAYOUT = FieldSchema(user=(("age", 3),), item=(("genre", 4),))


def trained(settings, sizes):
    network = settings.network(sizes)
    network.initialize(torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    for table in (network.users, network.items):
        table.weight.copy_(torch.randn(table.weight.shape, generator=generator))
    return network.eval()


def file(settings, network, extra, **metadata):
    """As version 0.1.0 wrote it: the parameters by name, other rows, and what they are as texts."""
    weights = {name: each.detach().numpy().copy() for name, each in network.named_parameters()}
    texts = {"settings": json.dumps(settings.model_dump(mode="json")), "codes": "", **metadata}
    return save({**weights, **extra}, texts)


def test_layers_on_two_rows():
    settings = NeumfSettings(dim=3, layers=[4, 2])
    network = trained(settings, Sizes(2, 5))
    scorer = load_scorer(file(settings, network, {}))
    with torch.no_grad():
        expected = network.score(torch.arange(2), torch.arange(5)[None]).numpy()
    np.testing.assert_allclose(
        scorer.scores(network.users.weight.numpy(), network.items.weight.numpy()), expected, rtol=1e-5
    )


def test_features_and_their_layout():
    settings = FmSettings(dim=3)
    network = trained(settings, Sizes(2, 5, LAYOUT))
    features = network.items.weight[5:].numpy().copy()
    scorer = load_scorer(file(settings, network, {"features": features}, layout=json.dumps(LAYOUT.to_json())))
    assert scorer.layout == LAYOUT
    assert np.array_equal(scorer.weights["features"], features)
    assert scorer.is_factorized


def test_histories_and_their_length():
    settings = SasrecSettings(dim=4, blocks=1, dropout=0.0)
    network = trained(settings, Sizes(0, 5, length=3))
    items = network.items.weight.numpy()
    scorer = load_scorer(file(settings, network, {"extra": items[:0].copy()}, length="3"))
    histories = np.array([0, 2, 3]), np.array([1, 4, 2])
    states = scorer.states(np.zeros((2, 0), np.float32), histories, items)
    assert states.shape == (2, scorer.state_size) == (2, 4)
    alone = scorer.states(np.zeros((1, 0), np.float32), (np.array([0, 2]), np.array([1, 4])), items)
    np.testing.assert_allclose(states[0], alone[0], rtol=1e-5)
