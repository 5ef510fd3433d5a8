"""Optimisers by name: torch's for the dense layers, lazy ones for the rows of embedding tables."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sparkrec.config import TrainingSettings
from sparkrec.kernels import embedding
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
    return kind(parameters, rate, betas=BETAS, eps=EPSILON, weight_decay=decay, fused=True)


class RowOptimizer:
    """The same rule for one table, row by row: those that a batch did not touch stay as they are."""

    def __init__(self, settings: TrainingSettings, table: Rows) -> None:
        self.settings, self.table = settings, table
        self.state = [torch.zeros_like(table.weight) for _ in range(_STATES[settings.optimizer])]
        self.steps = 0

    def step(self, rows: Tensor, gradients: Tensor, rate: float) -> None:
        """Update `rows` (u,), different ones, by their gradients (u, d)."""
        self.steps += 1
        if self.table.weight.device.type == "cpu":
            self._by_kernel(rows, gradients, rate)
        else:
            self._by_torch(rows, gradients, rate)

    def _by_kernel(self, rows: Tensor, gradients: Tensor, rate: float) -> None:
        settings = self.settings
        weight, states = self.table.weight.numpy(), [state.numpy() for state in self.state]
        given = rows.numpy(), gradients.numpy()
        if settings.optimizer == "sgd":
            embedding.sgd(weight, states[0], *given, rate, settings.momentum)
        elif settings.optimizer == "adagrad":
            embedding.adagrad(weight, states[0], *given, rate, EPSILON)
        elif settings.optimizer == "rmsprop":
            embedding.rmsprop(weight, states[0], *given, rate, DECAY, EPSILON)
        else:
            embedding.adam(weight, states[0], states[1], *given, self.steps, rate, *BETAS, EPSILON, self._decay)

    def _by_torch(self, rows: Tensor, gradients: Tensor, rate: float) -> None:
        """The rules of `kernels.embedding`, on any device."""
        name, weight = self.settings.optimizer, self.table.weight
        first = self.state[0][rows]
        if name == "sgd":
            first = self.settings.momentum * first + gradients
            weight[rows] -= rate * first
        elif name == "adagrad":
            first = first + gradients**2
            weight[rows] -= rate * gradients / (first.sqrt() + EPSILON)
        elif name == "rmsprop":
            first = DECAY * first + (1 - DECAY) * gradients**2
            weight[rows] -= rate * gradients / (first.sqrt() + EPSILON)
        else:
            first = BETAS[0] * first + (1 - BETAS[0]) * gradients
            second = BETAS[1] * self.state[1][rows] + (1 - BETAS[1]) * gradients**2
            self.state[1][rows] = second
            correction = math.sqrt(1 - BETAS[1] ** self.steps)
            size = rate * correction / (1 - BETAS[0] ** self.steps)
            moved = size * first / (second.sqrt() + EPSILON * correction)
            weight[rows] = (1 - rate * self._decay) * weight[rows] - moved
        self.state[0][rows] = first

    @property
    def _decay(self) -> float:
        return self.settings.weight_decay if self.settings.optimizer == "adamw" else 0.0

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
