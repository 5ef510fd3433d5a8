"""Multi-layer perceptron on a user and an item."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from sparkrec.config import MlpSettings
from sparkrec.models.layers import perceptron
from sparkrec.models.recommender import Recommender, Sizes


class Tower(nn.Module):
    """Layers of halves that shrink, on the concatenation of two rows of half the first one's size.

    The first layer is two, one a side: W (x, w) = W_x x + W_w w. So a user's part is computed once for all items.
    """

    def __init__(self, layers: Sequence[int], dropout: float) -> None:
        super().__init__()
        half = layers[0] // 2
        self.user, self.item = nn.Linear(half, layers[1], bias=False), nn.Linear(half, layers[1])
        first: list[nn.Module] = [nn.Dropout(dropout)] if dropout else []
        self.rest = nn.Sequential(*first, *perceptron(layers[1:], dropout))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(..., half) and (..., half) -> (..., last layer)."""
        hidden: Tensor = self.rest((self.user(x) + self.item(w)).relu())
        return hidden


class MLP(Recommender):
    """h . relu(W_L ... relu(W_1 (p_u, q_i) + b_1) ... + b_L) + c (He et al. 2017, section 3.3)."""

    def __init__(self, settings: MlpSettings, sizes: Sizes) -> None:
        half = settings.layers[0] // 2
        super().__init__(sizes.users, half, sizes.items, half)
        self.layers = np.array([half, *settings.layers[1:]])
        self.tower = Tower(settings.layers, settings.dropout)
        self.out = nn.Linear(settings.layers[-1], 1)

    def combine(self, x: Tensor, w: Tensor) -> Tensor:
        logits: Tensor = self.out(self.tower(x, w)).squeeze(-1)
        return logits
