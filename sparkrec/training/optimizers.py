"""Optimisers by name, lazy ones: the dense layers are a table of one row, which every batch touches."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparkrec.config import TrainingSettings
from sparkrec.kernels.arrays import F32
from sparkrec.kernels.gradients import embedding

BETAS, EPSILON, DECAY = (0.9, 0.999), 1e-8, 0.99
_STATES = {"sgd": 1, "adagrad": 1, "rmsprop": 1, "adam": 2, "adamw": 2}


class Optimizer:
    """torch's rule of that name for one table, row by row: those that a batch did not touch stay as they are."""

    def __init__(self, settings: TrainingSettings, weight: Tensor, l2: float = 0.0) -> None:
        self.settings, self.weight, self.l2 = settings, weight, l2
        self.state = [torch.zeros_like(weight) for _ in range(_STATES[settings.optimizer])]
        self.moved = torch.zeros(len(weight) if l2 else 0, dtype=torch.long, device=weight.device)
        """The step at which each row has last moved, where there is L2 on the table."""
        self.steps = 0

    def step(self, rows: Tensor, gradients: Tensor, rate: float) -> None:
        """Update `rows` (u,), different ones, by their gradients (u, d).

        L2 on the table is in the loss of every step: a row takes the gradients of those since it last moved at once.
        """
        self.steps += 1
        if self.l2:
            missed = self.steps - self.moved[rows]
            gradients = gradients + 2.0 * self.l2 * missed[:, None] * self.weight[rows]
            self.moved[rows] = self.steps
        if self.weight.device.type == "cpu":
            self._by_kernel(rows, gradients, rate)
        else:
            self._by_torch(rows, gradients, rate)

    def _by_kernel(self, rows: Tensor, gradients: Tensor, rate: float) -> None:
        given = rows.numpy(), gradients.numpy()
        embedding.update(self.weight.numpy(), *self.states, *given, self.rule, self.steps, rate)

    def _by_torch(self, rows: Tensor, gradients: Tensor, rate: float) -> None:
        """The rules of `kernels.embedding`, on any device."""
        name, weight = self.settings.optimizer, self.weight
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
    def states(self) -> tuple[F32, F32]:
        """For the kernels: the first and the last."""
        return self.state[0].numpy(), self.state[-1].numpy()

    @property
    def rule(self) -> embedding.Rule:
        """For the kernels."""
        name = self.settings.optimizer
        first, second = (self.settings.momentum, DECAY) if name in ("sgd", "rmsprop") else BETAS
        return embedding.Rule(embedding.OPTIMIZERS[name], first, second, EPSILON, self._decay)

    @property
    def _decay(self) -> float:
        return self.settings.weight_decay if self.settings.optimizer == "adamw" else 0.0

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors by name, of which `load` makes this state again."""
        states = {f"state{at}": each for at, each in enumerate(self.state)}
        return {"steps": torch.tensor(self.steps), **states, **({"moved": self.moved} if self.l2 else {})}

    def load(self, state: dict[str, Tensor]) -> None:
        self.steps = int(state["steps"])
        for at, each in enumerate(self.state):
            each.copy_(state[f"state{at}"])
        if self.l2:
            self.moved.copy_(state["moved"])


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
