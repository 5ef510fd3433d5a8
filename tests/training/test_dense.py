"""Dense layers in one piece move as torch's optimisers move them."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from sparkrec.training.dense import Dense
from tests.training.examples import plain

pytestmark = pytest.mark.torch

TORCHS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=0.05),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, 0.1, eps=1e-8, weight_decay=0.05),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, 0.1, alpha=0.99, weight_decay=0.05),
    "adam": lambda parameters: torch.optim.Adam(parameters, 0.1, weight_decay=0.05),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.1, weight_decay=0.05),
}


def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("name", TORCHS)
def test_layers_move_as_torch_moves_them(name, clip_norm):
    mine, theirs = layers(), layers()
    settings = plain(optimizer=name, momentum=0.9, weight_decay=0.05, clip_norm=clip_norm)
    dense, optimizer = Dense(mine, settings, torch.device("cpu")), TORCHS[name](theirs.parameters())
    for step in range(4):
        given = torch.arange(8.0).view(2, 4) - step
        for model in (mine, theirs):
            loss = model(given).square().sum()
            loss.backward()
        assert dense.step(dense.message(loss.detach()), 0.1) == pytest.approx(float(loss), rel=1e-4)
        if clip_norm:
            nn.utils.clip_grad_norm_(theirs.parameters(), clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        assert not dense.gradients.any()
    for found, expected in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_what_is_not_learned_stays():
    model = layers()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    dense = Dense(model, plain(), torch.device("cpu"))
    assert dense.step(dense.message(torch.tensor(2.0)), 0.1) == 2.0
    assert len(dense.weights) == 0
