"""Linear autoencoders of low rank, by gradient."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from typing_extensions import Self

from sparkrec.config.data import DataFacts
from sparkrec.config.model import Declaration
from sparkrec.models.base.graph import Rows
from sparkrec.models.base.recommender import Sizes
from sparkrec.models.base.row_model import RowModel
from sparkrec.models.base.settings import MOST_ITEMS, NetworkSettings


class LinearAutoencoderSettings(NetworkSettings):
    """Linear autoencoder of low rank, which learns whole rows from a part of them (Steck 2020; Liang et al. 2018)."""

    kind: Literal["linear_autoencoder"] = "linear_autoencoder"
    dim: int = Field(64, ge=1)
    """Rank: length of the vectors of items, and of what a row becomes."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Share of the items of a row that a step leaves out of what it reads, not of what it asks for. Without it an item
    would learn to say itself."""

    def suited(self, data: DataFacts) -> Self:
        return self.model_copy(update={"training": self.training.suited(data, self._usual(data), by_user=True)})

    def _usual(self, data: DataFacts) -> dict[str, Any]:
        whole = data.items <= MOST_ITEMS
        usual: dict[str, Any] = {"loss": "full_softmax" if whole else "softmax", "negatives": 0 if whole else 128}
        usual |= {"optimizer": "adagrad", "learning_rate": 0.05, "init_scale": 0.1, "user_l2": 0.0, "item_l2": 0.0}
        return usual


class LinearAutoencoder(RowModel):
    """<sum_j r_j v_j, q_i> + b_i, where r is the user's row over its length (L2), with entries left out at random while
    it is trained; rows of items are (v, q, b).

    So the weights of EASE (Steck 2019) are V Q' of rank `dim`, and dropout keeps them from the identity (Steck 2020);
    by full_softmax it is the denoising autoencoder of Liang et al. 2018, section 2.3, without its tanh.
    """

    def __init__(self, settings: LinearAutoencoderSettings, sizes: Sizes) -> None:
        super().__init__(sizes.users, 0, sizes.items, 2 * settings.dim + 1)
        self.dim, self.dropout = settings.dim, settings.dropout

    def states(self, x: Tensor, rows: Rows) -> Tensor:
        strength = rows.values * rows.confidence
        squares = strength.new_zeros(len(x)).index_add(0, rows.of, strength.square())
        weights = F.dropout(strength / squares.sqrt()[rows.of].clamp(min=1e-12), self.dropout, self.training)
        return self.pooled(rows, weights)[:, : self.dim]

    def interaction(self, x: Tensor, w: Tensor) -> Tensor:
        return (x * w[..., self.dim : -1]).sum(-1) + w[..., -1]

    def vectors(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat((x, torch.ones_like(x[:, :1])), 1), w[:, self.dim :]


MODEL = Declaration(
    settings=LinearAutoencoderSettings,
    feedback=("implicit",),
    module=LinearAutoencoder,
)
