"""Kernels of gradients as models declare them."""

from __future__ import annotations

from typing import Any

from sparkrec.kernels.arrays import F32
from sparkrec.kernels.gradients import field_pairs, towers
from sparkrec.models.base.recommender import KernelStep, Recommender


def tables(model: Recommender) -> tuple[F32, F32]:
    """The rows of users and of items."""
    return model.users.weight.numpy(), model.items.weight.numpy()


def tower_kernel(model: Any, step: KernelStep) -> float:
    """Of h . (p_u * q_i, tower) + c; the model says the sizes of its tower in `layers`."""
    total: float = towers.add_gradients(
        *tables(model),
        model.layers,
        step.weights,
        step.batch,
        step.goal,
        step.scale,
        step.user_sums,
        step.item_sums,
        step.weight_sums,
    )
    return total


def field_sum_kernel(model: Any, step: KernelStep) -> float:
    """Of models that are sums over fields and pairs of them."""
    constant, sums = float(model.constant.detach()), (step.user_sums, step.item_sums)
    total, by_constant = field_pairs.add_gradients(
        *tables(model), constant, step.batch, step.goal, model.weight_l2, step.scale, *sums
    )
    if model.constant.requires_grad:
        step.weight_sums[0] += by_constant
    return float(total)
