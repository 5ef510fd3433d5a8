"""Several steps of matrix factorization in one call, for one process: nothing between them is left to Python."""

from __future__ import annotations

import numpy as np

from sparkrec.kernels import factors
from sparkrec.kernels.arrays import F32, Scratch
from sparkrec.training.batches import Run
from sparkrec.training.dense import Dense
from sparkrec.training.gradients import goal_of
from sparkrec.training.optimizers import Optimizer


def train_run(
    dense: Dense, users: Optimizer, items: Optimizer, run: Run, rates: list[float], scratch: Scratch
) -> list[float]:
    """Take the steps of a run as `Trainer._step` would, at these learning rates; the mean loss of each."""
    steps, settings = run.steps, users.settings
    assert steps is not None
    most = int(np.diff(steps.item_starts).max())
    losses = factors.train(
        users.weight.numpy(),
        items.weight.numpy(),
        dense.weights.numpy(),
        users.states,
        items.states,
        _only(dense.optimizer),
        steps,
        goal_of(settings),
        1.0 / np.array(run.totals, np.float64),
        np.array(rates),
        users.rule,
        users.steps + 1,
        settings.clip_norm or 0.0,
        0.0 if settings.optimizer == "adamw" else settings.weight_decay,
        scratch.zeros("items", most, items.weight.shape[1]),
    )
    for each in (users, items, dense.optimizer):
        each.steps += len(rates)
    found: list[float] = losses.tolist()
    return found


def _only(optimizer: Optimizer) -> tuple[F32, F32]:
    first, second = optimizer.states
    return first[0], second[0]
