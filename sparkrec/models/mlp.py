"""Multi-layer perceptron on a user and an item."""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor, nn

from sparkrec.config.model import Declaration
from sparkrec.models.base.gradient_kernels import tower_kernel
from sparkrec.models.base.layers import Tower
from sparkrec.models.base.recommender import Recommender, Sizes
from sparkrec.models.base.settings import LayeredSettings


class MlpSettings(LayeredSettings):
    """Multi-layer perceptron on user and item (He et al. 2017)."""

    kind: Literal["mlp"] = "mlp"


class MLP(Recommender):
    """h . relu(W_L ... relu(W_1 (p_u, q_i) + b_1) ... + b_L) + c (He et al. 2017, section 3.3)."""

    gradient_kernel = tower_kernel

    def __init__(self, settings: MlpSettings, sizes: Sizes) -> None:
        half = settings.layers[0] // 2
        super().__init__(sizes.users, half, sizes.items, half)
        self.layers = np.array([half, *settings.layers[1:]])
        self.tower = Tower(half, half, settings.layers[1:], settings.dropout)
        self.out = nn.Linear(settings.layers[-1], 1)

    def interaction(self, x: Tensor, w: Tensor) -> Tensor:
        logits: Tensor = self.out(self.tower(x, w)).squeeze(-1)
        return logits


MODEL = Declaration(
    settings=MlpSettings,
    feedback=("implicit",),
    module=MLP,
)
