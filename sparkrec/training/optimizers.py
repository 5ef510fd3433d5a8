"""Optimisers by name: torch's for the dense layers, lazy ones for the rows of embedding tables."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sparkrec.config import TrainingSettings
from sparkrec.kernels import embedding
from sparkrec.kernels.arrays import F32, I64
from sparkrec.models.rows import Rows

BETAS, EPSILON, DECAY = (0.9, 0.999), 1e-8, 0.99
_STATES = {"sgd": 1, "adagrad": 1, "rmsprop": 1, "adam": 2, "adamw": 2}


def dense_optimizer(settings: TrainingSettings, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """torch's, of all dense layers."""
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=settings.momentum, weight_decay=decay)
    if settings.optimizer == "adagrad":
        return torch.optim.Adagrad(parameters, rate, weight_decay=decay, eps=EPSILON)
    if settings.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, rate, alpha=DECAY, weight_decay=decay, eps=EPSILON)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, rate, betas=BETAS, eps=EPSILON, weight_decay=decay)


class RowOptimizer:
    """The same rule for one table, row by row: those that a batch did not touch stay as they are."""

    def __init__(self, settings: TrainingSettings, table: Rows) -> None:
        self.settings, self.table = settings, table
        self.state = [torch.zeros_like(table.weight) for _ in range(_STATES[settings.optimizer])]
        self.steps = 0

    def step(self, rows: I64, gradients: F32, rate: float) -> None:
        """Update `rows` (u,), different ones, by their gradients (u, d)."""
        self.steps += 1
        settings = self.settings
        weight, states = self.table.weight.numpy(), [state.numpy() for state in self.state]
        given = rows, gradients
        if settings.optimizer == "sgd":
            embedding.sgd(weight, states[0], *given, rate, settings.momentum)
        elif settings.optimizer == "adagrad":
            embedding.adagrad(weight, states[0], *given, rate, EPSILON)
        elif settings.optimizer == "rmsprop":
            embedding.rmsprop(weight, states[0], *given, rate, DECAY, EPSILON)
        else:
            decay = settings.weight_decay if settings.optimizer == "adamw" else 0.0
            embedding.adam(weight, states[0], states[1], *given, self.steps, rate, *BETAS, EPSILON, decay)

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors by name, of which `load` makes this state again."""
        return {"steps": torch.tensor(self.steps), **{f"state{at}": each for at, each in enumerate(self.state)}}

    def load(self, state: dict[str, Tensor]) -> None:
        self.steps = int(state["steps"])
        for at, each in enumerate(self.state):
            each.copy_(state[f"state{at}"])


def rate_at(settings: TrainingSettings, step: int, steps: int) -> float:
    """The learning rate at a step of all `steps`, from 0."""
    rate = settings.learning_rate
    if step < settings.warmup_steps:
        return rate * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(steps - settings.warmup_steps, 1)
    if settings.schedule == "linear":
        return rate * (1.0 - done)
    if settings.schedule == "cosine":
        return rate * 0.5 * (1.0 + math.cos(math.pi * done))
    return rate


def flat_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Tensors of a torch optimiser by `parameter.name`."""
    states: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {f"{at}.{name}": torch.as_tensor(value) for at, state in states.items() for name, value in state.items()
            if value is not None}  # fmt: skip


def load_flat_state(optimizer: torch.optim.Optimizer, flat: dict[str, Tensor]) -> None:
    """What `flat_state` gave."""
    state = optimizer.state_dict()
    nested: dict[int, dict[str, Tensor]] = {}
    for name, value in flat.items():
        at, _, key = name.partition(".")
        nested.setdefault(int(at), {})[key] = value
    optimizer.load_state_dict({**state, "state": nested})
