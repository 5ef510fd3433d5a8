"""DeepFM."""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor, nn

from sparkrec.config.model import Declaration, Likeness
from sparkrec.kernels.gradients import field_towers
from sparkrec.models.base.field_model import FieldModel, weights_of
from sparkrec.models.base.gradient_kernels import tables
from sparkrec.models.base.layers import Tower
from sparkrec.models.base.recommender import KernelStep, Sizes
from sparkrec.models.base.settings import DeepSettings
from sparkrec.models.fm import inner_pairs


class DeepfmSettings(DeepSettings):
    """DeepFM (Guo et al. 2017)."""

    kind: Literal["deepfm"] = "deepfm"


class DeepFM(FieldModel):
    """FM + h . MLP(v_1, ..., v_F) on the same vectors (Guo et al. 2017, eq. 1)."""

    def __init__(self, settings: DeepfmSettings, sizes: Sizes) -> None:
        super().__init__(settings, sizes, settings.dim)
        self.layers = np.array(settings.layers)
        sides = self.n_query * settings.dim, self.n_item * settings.dim
        self.deep = Tower(*sides, settings.layers, settings.dropout, settings.batch_norm)
        self.out = nn.Linear(settings.layers[-1], 1, bias=False)

    def gradient_kernel(self, step: KernelStep) -> float:
        constant, learned = float(self.constant.detach()), int(self.constant.requires_grad)
        total, by_constant = field_towers.add_gradients(
            *tables(self),
            constant,
            self.layers,
            step.weights[learned:],
            (self.n_query, self.n_item),
            step.batch,
            step.goal,
            self.weight_l2,
            step.scale,
            step.user_sums,
            step.item_sums,
            step.weight_sums[learned:],
        )
        if learned:
            step.weight_sums[0] += by_constant
        return float(total)

    def field_interaction(self, query: Tensor, item: Tensor) -> Tensor:
        x, w = query[..., 1:], item[..., 1:]
        deep: Tensor = self.out(self.deep(x.flatten(-2), w.flatten(-2))).squeeze(-1)
        return weights_of(query, item) + inner_pairs(x, w) + deep


MODEL = Declaration(
    settings=DeepfmSettings,
    feedback=("clicks", "explicit", "implicit"),
    module=DeepFM,
    sees_fields=True,
    likeness=Likeness(lambda settings: (2, settings.dim)),
)
