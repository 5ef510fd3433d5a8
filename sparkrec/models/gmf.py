"""Generalized matrix factorization."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from sparkrec.config import GmfSettings
from sparkrec.models.base.recommender import Recommender, Sizes


class GMF(Recommender):
    """h . (p_u * q_i) + c (He et al. 2017, section 3.2)."""

    layers = np.zeros(0, np.int64)

    def __init__(self, settings: GmfSettings, sizes: Sizes) -> None:
        super().__init__(sizes.users, settings.dim, sizes.items, settings.dim)
        self.out = nn.Linear(settings.dim, 1)

    def combine(self, x: Tensor, w: Tensor) -> Tensor:
        logits: Tensor = self.out(x * w).squeeze(-1)
        return logits

    def vectors(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        users = torch.cat((x * self.out.weight, self.out.bias.expand(len(x), 1)), 1)
        return users, torch.cat((w, torch.ones_like(w[:, :1])), 1)
