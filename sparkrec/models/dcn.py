"""Deep and cross network, version 2."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sparkrec.config.model import Declaration, Likeness
from sparkrec.models.base.field_model import FieldModel, joined, weights_of
from sparkrec.models.base.layers import perceptron
from sparkrec.models.base.recommender import Sizes
from sparkrec.models.base.settings import DeepSettings


class DcnSettings(DeepSettings):
    """Deep and cross network, version 2 (Wang et al. 2021)."""

    kind: Literal["dcn"] = "dcn"
    cross_layers: int = Field(3, ge=1)
    """Layers of the cross network."""


class DCN(FieldModel):
    """h . (x_L, MLP(x_0)) + sum_f a_f + c, with x_0 = (v_1, ..., v_F) and x_{l+1} = x_0 * (W_l x_l + b_l) + x_l (Wang
    et al. 2021, eq. 1; cross and deep in parallel)."""

    def __init__(self, settings: DcnSettings, sizes: Sizes) -> None:
        super().__init__(settings, sizes, settings.dim)
        size = self.n_fields * settings.dim
        self.cross = nn.ModuleList(nn.Linear(size, size) for _ in range(settings.cross_layers))
        self.deep = perceptron([size, *settings.layers], settings.dropout, settings.batch_norm)
        self.out = nn.Linear(size + settings.layers[-1], 1, bias=False)

    def field_interaction(self, query: Tensor, item: Tensor) -> Tensor:
        first = crossed = joined(query[..., 1:], item[..., 1:]).flatten(-2)
        for layer in self.cross:
            crossed = first * layer(crossed) + crossed
        logits: Tensor = self.out(torch.cat((crossed, self.deep(first)), -1)).squeeze(-1)
        return logits + weights_of(query, item)


MODEL = Declaration(
    settings=DcnSettings,
    feedback=("clicks", "explicit", "implicit"),
    module=DCN,
    sees_fields=True,
    likeness=Likeness(lambda settings: (2, settings.dim)),
)
