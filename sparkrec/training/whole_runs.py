"""Several steps of matrix factorization in one call, for one process: nothing between them is left to Python."""

from __future__ import annotations

import numpy as np

from sparkrec.kernels.arrays import Scratch
from sparkrec.kernels.gradients import factors
from sparkrec.training.batches.pairs import StepGroup
from sparkrec.training.dense import Dense
from sparkrec.training.gradients import goal_of
from sparkrec.training.optimizers import Optimizer


def train_run(
    dense: Dense, users: Optimizer, items: Optimizer, run: StepGroup, rates: list[float], scratch: Scratch
) -> list[float]:
    """Take the steps of a run as `Trainer._step` would, at these learning rates; the mean loss of each."""
    steps, settings = run.steps, users.settings
    assert steps is not None
    losses = factors.train(
        users.weight.numpy(),
        items.weight.numpy(),
        dense.weights[None].numpy(),
        users.states,
        items.states,
        dense.optimizer.states,
        steps,
        goal_of(settings),
        1.0 / np.array(run.totals, np.float64),
        np.array(rates),
        users.rule,
        users.steps + 1,
        settings.clip_norm or 0.0,
        0.0 if settings.optimizer == "adamw" else settings.weight_decay,
        *(
            scratch.zeros(name, int(np.diff(starts).max()), table.weight.shape[1])
            for name, starts, table in (("users", steps.user_starts, users), ("items", steps.item_starts, items))
        ),
    )
    for each in (users, items, dense.optimizer):
        each.steps += len(rates)
    found: list[float] = losses.tolist()
    return found
