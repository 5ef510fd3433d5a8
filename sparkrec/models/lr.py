"""Logistic regression."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sparkrec.config.model import Declaration
from sparkrec.models.base.field_model import FieldModel, weights_of
from sparkrec.models.base.gradient_kernels import field_sum_kernel
from sparkrec.models.base.recommender import Sizes
from sparkrec.models.base.settings import FieldNetworkSettings


class LrSettings(FieldNetworkSettings):
    """Logistic, or with squared loss linear, regression on features."""

    kind: Literal["lr"] = "lr"


class LR(FieldModel):
    """sum_f a_f + c."""

    is_sum_over_fields = True
    gradient_kernel = field_sum_kernel

    def __init__(self, settings: LrSettings, sizes: Sizes) -> None:
        super().__init__(settings, sizes, 0)

    def field_interaction(self, query: Tensor, item: Tensor) -> Tensor:
        return weights_of(query, item)

    def vectors(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        of_query = self._of(x, self.n_query)[..., 0].sum(-1, keepdim=True) + self.constant
        of_item = self._of(w, self.n_item)[..., 0].sum(-1, keepdim=True)
        ones = torch.ones_like
        return torch.cat((of_query, ones(of_query)), -1), torch.cat((ones(of_item), of_item), -1)


MODEL = Declaration(
    settings=LrSettings,
    feedback=("clicks", "explicit", "implicit"),
    module=LR,
    sees_fields=True,
    explains_fields=True,
    likeness=None,
)
