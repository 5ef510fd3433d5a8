"""DeepFM."""

from __future__ import annotations

from torch import Tensor, nn

from sparkrec.config import DeepfmSettings
from sparkrec.models.field_model import FieldModel
from sparkrec.models.fm import pair_sums
from sparkrec.models.layers import perceptron
from sparkrec.models.recommender import Sizes


class DeepFM(FieldModel):
    """FM + h . MLP(v_1, ..., v_F) on the same vectors (Guo et al. 2017, eq. 1)."""

    def __init__(self, settings: DeepfmSettings, sizes: Sizes) -> None:
        super().__init__(settings, sizes, settings.dim)
        hidden = perceptron([self.n_fields * settings.dim, *settings.layers], settings.dropout, settings.batch_norm)
        self.deep = nn.Sequential(*hidden, nn.Linear(settings.layers[-1], 1, bias=False))

    def interact(self, weights: Tensor, vectors: Tensor) -> Tensor:
        deep: Tensor = self.deep(vectors.flatten(-2)).squeeze(-1)
        return weights.sum(-1) + pair_sums(vectors).sum(-1) + deep
