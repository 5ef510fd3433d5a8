"""Attentional factorization machines."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparkrec.config import AfmSettings
from sparkrec.models.base.field_model import FieldModel, joined, weights_of
from sparkrec.models.base.recommender import Sizes


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
