"""The steps of a group in one call, for models with such a kernel: nothing between them is left to Python."""

from __future__ import annotations

import numpy as np

from sparkrec.kernels.arrays import Scratch
from sparkrec.models.base.recommender import Recommender
from sparkrec.training.batches.batch import StepGroup
from sparkrec.training.dense import Dense
from sparkrec.training.gradients import goal_of
from sparkrec.training.optimizers import Optimizer


def train_group(
    model: Recommender,
    dense: Dense,
    users: Optimizer,
    items: Optimizer,
    group: StepGroup,
    rates: list[float],
    scratch: Scratch,
) -> list[float]:
    """Take the steps of a group as `Stepper.step` would, at these learning rates; the mean loss of each."""
    steps, settings = group.steps, users.settings
    assert steps is not None
    assert model.group_kernel is not None
    losses = model.group_kernel(
        users.weight.numpy(),
        items.weight.numpy(),
        dense.weights[None].numpy(),
        users.states,
        items.states,
        dense.optimizer.states,
        steps,
        goal_of(settings),
        1.0 / np.array(group.totals, np.float64),
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
    means: list[float] = losses.tolist()
    return means
