"""Matrix factorization."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from sparkrec.config.model import Declaration, Likeness
from sparkrec.kernels.gradients import factors
from sparkrec.models.base.gradient_kernels import tables
from sparkrec.models.base.published import FieldRows, Published
from sparkrec.models.base.recommender import KernelStep, Recommender, Sizes
from sparkrec.models.base.settings import NetworkSettings


class MfSettings(NetworkSettings):
    """Matrix factorization with biases, by any loss (Koren et al. 2009; Rendle et al. 2009, 2020)."""

    kind: Literal["mf"] = "mf"
    dim: int = Field(64, ge=1)
    """Length of the vectors of users and items."""


class MF(Recommender):
    """p_u . q_i + b_u + b_i + c (Koren, Bell and Volinsky 2009, eq. 4); x_u = (p_u, b_u), w_i = (q_i, b_i).

    Losses that compare the items of a user say nothing about c, which stays zero.
    """

    group_kernel = staticmethod(factors.train)

    def __init__(self, settings: MfSettings, sizes: Sizes) -> None:
        super().__init__(sizes.users, settings.dim + 1, sizes.items, settings.dim + 1)
        self.constant = nn.Parameter(torch.zeros(()), requires_grad=not settings.training.compares)

    def interaction(self, x: Tensor, w: Tensor) -> Tensor:
        d = x.shape[-1] - 1
        if x.shape[-2] == 1 and w.dim() == x.dim() and w.shape[0] == x.shape[0]:
            inner = torch.matmul(w[..., :d], x[..., 0, :d, None])[..., 0]
        else:
            inner = (x[..., :d] * w[..., :d]).sum(-1)
        return inner + x[..., d] + w[..., d] + self.constant

    def gradient_kernel(self, step: KernelStep) -> float:
        constant, sums = float(self.constant.detach()), (step.user_sums, step.item_sums)
        total, by_constant = factors.add_gradients(*tables(self), constant, step.batch, step.goal, step.scale, *sums)
        if len(step.weight_sums):
            step.weight_sums[0] += by_constant
        return float(total)

    @classmethod
    def field_rows(cls, published: Published) -> FieldRows:
        """Biases and factors of vectors (p, b, 1) and (q, 1, b + c)."""
        users, items = published.users[:, :-1], np.delete(published.items, -2, axis=1)
        return FieldRows(np.roll(users, 1, axis=1), np.roll(items, 1, axis=1), None, None)

    def vectors(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        d = x.shape[-1] - 1
        users = torch.cat((x, torch.ones_like(x[:, :1])), 1)
        items = torch.cat((w[:, :d], torch.ones_like(w[:, :1]), w[:, d:] + self.constant), 1)
        return users, items


MODEL = Declaration(
    settings=MfSettings,
    feedback=("implicit", "explicit"),
    module=MF,
    likeness=Likeness(lambda settings: (1, settings.dim)),
)
