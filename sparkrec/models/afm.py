"""Attentional factorization machines."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sparkrec.config.model import Declaration, Likeness
from sparkrec.models.base.field_model import FieldModel, joined, weights_of
from sparkrec.models.base.recommender import Sizes
from sparkrec.models.base.settings import FieldNetworkSettings


class AfmSettings(FieldNetworkSettings):
    """Attentional factorization machine (Xiao et al. 2017)."""

    kind: Literal["afm"] = "afm"
    dim: int = Field(10, ge=1)
    """Length of the vectors."""
    attention: int = Field(16, ge=1)
    """Size of the attention layer."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """After attention pooling."""


class AFM(FieldModel):
    """sum_f a_f + p . sum_{f < g} alpha_fg (v_f * v_g) + c, with alpha = softmax(h . relu(W (v_f * v_g) + b)) (Xiao et
    al. 2017, eq. 7)."""

    def __init__(self, settings: AfmSettings, sizes: Sizes) -> None:
        super().__init__(settings, sizes, settings.dim)
        self.attention = nn.Sequential(
            nn.Linear(settings.dim, settings.attention), nn.ReLU(), nn.Linear(settings.attention, 1, bias=False)
        )
        self.dropout = nn.Dropout(settings.dropout)
        self.out = nn.Linear(settings.dim, 1, bias=False)
        self._upper = torch.triu_indices(self.n_fields, self.n_fields, 1)

    def field_interaction(self, query: Tensor, item: Tensor) -> Tensor:
        vectors = joined(query[..., 1:], item[..., 1:])
        f, g = self._upper.to(vectors.device)
        pairs = vectors.index_select(-2, f) * vectors.index_select(-2, g)
        attended = self.attention(pairs).softmax(-2)
        logits: Tensor = self.out(self.dropout((attended * pairs).sum(-2))).squeeze(-1)
        return weights_of(query, item) + logits


MODEL = Declaration(
    settings=AfmSettings,
    feedback=("clicks", "explicit", "implicit"),
    module=AFM,
    sees_fields=True,
    likeness=Likeness(lambda settings: (2, settings.dim)),
)
