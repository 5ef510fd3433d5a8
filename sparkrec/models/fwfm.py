"""Field-weighted factorization machines."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sparkrec.config.model import Declaration, Likeness
from sparkrec.models.base.field_model import FieldModel, joined, weights_of
from sparkrec.models.base.recommender import Sizes
from sparkrec.models.base.settings import FieldNetworkSettings


class FwfmSettings(FieldNetworkSettings):
    """Field-weighted factorization machine (Pan et al. 2018)."""

    kind: Literal["fwfm"] = "fwfm"
    dim: int = Field(10, ge=1)
    """Length of the vectors."""


class FwFM(FieldModel):
    """sum_f a_f + sum_{f < g} r_fg <v_f, v_g> + c (Pan et al. 2018, eq. 6): pairs of fields matter more or less."""

    def __init__(self, settings: FwfmSettings, sizes: Sizes) -> None:
        super().__init__(settings, sizes, settings.dim)
        self.strength = nn.Parameter(torch.ones(self.n_fields * (self.n_fields - 1) // 2))
        """r, row by row of its upper triangle."""
        self._upper = torch.triu_indices(self.n_fields, self.n_fields, 1)

    def field_interaction(self, query: Tensor, item: Tensor) -> Tensor:
        vectors = joined(query[..., 1:], item[..., 1:])
        matrix = vectors.new_zeros(self.n_fields, self.n_fields)
        f, g = self._upper
        matrix = matrix.index_put((f.to(vectors.device), g.to(vectors.device)), self.strength.to(vectors.dtype))
        return weights_of(query, item) + (torch.matmul(matrix, vectors) * vectors).sum((-1, -2))


MODEL = Declaration(
    settings=FwfmSettings,
    feedback=("clicks", "explicit", "implicit"),
    module=FwFM,
    sees_fields=True,
    likeness=Likeness(lambda settings: (2, settings.dim)),
)
