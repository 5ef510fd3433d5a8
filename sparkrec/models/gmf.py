"""Generalized matrix factorization."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from sparkrec.config.model import Declaration, Likeness
from sparkrec.models.base.gradient_kernels import tower_kernel
from sparkrec.models.base.published import Published
from sparkrec.models.base.recommender import Recommender, Sizes
from sparkrec.models.base.settings import NetworkSettings


class GmfSettings(NetworkSettings):
    """Generalized matrix factorization (He et al. 2017)."""

    kind: Literal["gmf"] = "gmf"
    dim: int = Field(64, ge=1)
    """Length of the vectors of users and items."""


class GMF(Recommender):
    """h . (p_u * q_i) + c (He et al. 2017, section 3.2)."""

    gradient_kernel = tower_kernel
    layers = np.zeros(0, np.int64)

    def __init__(self, settings: GmfSettings, sizes: Sizes) -> None:
        super().__init__(sizes.users, settings.dim, sizes.items, settings.dim)
        self.out = nn.Linear(settings.dim, 1)

    def interaction(self, x: Tensor, w: Tensor) -> Tensor:
        logits: Tensor = self.out(x * w).squeeze(-1)
        return logits

    @classmethod
    def restored(cls, published: Published) -> GMF:
        """As vectors, users have h in them and c in a column of their own: here h is 1."""
        d = published.users.shape[1] - 1
        c = published.users[:1, d] if len(published.users) else np.zeros(1, np.float32)
        weights = {"out.weight": np.ones((1, d), np.float32), "out.bias": c}
        users, items = published.users[:, :d], published.items[:, :d]
        return super().restored(published._replace(users=users, items=items, weights=weights))

    def vectors(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        users = torch.cat((x * self.out.weight, self.out.bias.expand(len(x), 1)), 1)
        return users, torch.cat((w, torch.ones_like(w[:, :1])), 1)


MODEL = Declaration(
    settings=GmfSettings,
    feedback=("implicit",),
    module=GMF,
    likeness=Likeness(lambda settings: (1, settings.dim)),
)
