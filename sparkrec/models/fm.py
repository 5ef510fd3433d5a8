"""Factorization machines."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from sparkrec.config.model import Declaration, Likeness
from sparkrec.models.base.field_model import FieldModel, weights_of
from sparkrec.models.base.gradient_kernels import field_sum_kernel
from sparkrec.models.base.recommender import Sizes
from sparkrec.models.base.settings import FieldNetworkSettings


class FmSettings(FieldNetworkSettings):
    """Factorization machine (Rendle 2010)."""

    kind: Literal["fm"] = "fm"
    dim: int = Field(10, ge=1)
    """Length of the vectors."""


def pair_sums(vectors: Tensor) -> Tensor:
    """(..., F, d) -> (..., d): the sum over f < g of v_f * v_g, 1/2 ((sum v_f)^2 - sum v_f^2) (Rendle 2010, lemma
    3.1)."""
    return 0.5 * (vectors.sum(-2).square() - vectors.square().sum(-2))


def inner_pairs(query: Tensor, item: Tensor) -> Tensor:
    """(..., F_q, d) and (..., F_i, d) -> (...): the sum of <v_f, v_g> over all pairs of the fields of both."""
    within = pair_sums(query).sum(-1) + pair_sums(item).sum(-1)
    return within + (query.sum(-2) * item.sum(-2)).sum(-1)


class FM(FieldModel):
    """sum_f a_f + sum_{f < g} <v_f, v_g> + c (Rendle 2010, eq. 1), over pairs of different fields."""

    is_sum_over_fields = True
    gradient_kernel = field_sum_kernel

    def __init__(self, settings: FmSettings, sizes: Sizes) -> None:
        super().__init__(settings, sizes, settings.dim)

    def field_interaction(self, query: Tensor, item: Tensor) -> Tensor:
        return weights_of(query, item) + inner_pairs(query[..., 1:], item[..., 1:])

    def vectors(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """What is the query's alone and the item's alone are numbers; between them is one inner product."""
        query, item = self._of(x, self.n_query), self._of(w, self.n_item)
        of_query, of_item = (
            (each[..., 0].sum(-1) + pair_sums(each[..., 1:]).sum(-1))[..., None] for each in (query, item)
        )
        ones = torch.ones_like
        users = torch.cat((query[..., 1:].sum(-2), of_query + self.constant, ones(of_query)), -1)
        return users, torch.cat((item[..., 1:].sum(-2), ones(of_item), of_item), -1)


MODEL = Declaration(
    settings=FmSettings,
    feedback=("clicks", "explicit", "implicit"),
    module=FM,
    sees_fields=True,
    explains_fields=True,
    likeness=Likeness(lambda settings: (2, settings.dim)),
)
