"""Neural matrix factorization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from sparkrec.config.base import Reference
from sparkrec.config.model import Declaration
from sparkrec.models.base.gradient_kernels import tower_kernel
from sparkrec.models.base.layers import Tower
from sparkrec.models.base.published import Published
from sparkrec.models.base.recommender import Recommender, Sizes, kinds_of
from sparkrec.models.base.settings import LayeredSettings
from sparkrec.models.gmf import GMF
from sparkrec.models.mlp import MLP


class NeumfSettings(LayeredSettings):
    """GMF and MLP in one (He et al. 2017)."""

    kind: Literal["neumf"] = "neumf"
    dim: int = Field(32, ge=1)
    """Of the GMF part."""
    start_from: list[Reference] = []
    """A trained gmf and mlp of the same sizes."""

    @property
    def parents(self) -> list[str]:
        return self.start_from


class NeuMF(Recommender):
    """h . (p_u * q_i, tower(p'_u, q'_i)) + c (He et al. 2017, eq. 12): GMF and MLP, with rows of their own.

    x_u = (p_u, p'_u) and w_i = (q_i, q'_i), so that a pair is read once.
    """

    gradient_kernel = tower_kernel

    def __init__(self, settings: NeumfSettings, sizes: Sizes) -> None:
        size = settings.dim + settings.layers[0] // 2
        super().__init__(sizes.users, size, sizes.items, size)
        self.dim = settings.dim
        self.layers = np.array([settings.layers[0] // 2, *settings.layers[1:]])
        self.tower = Tower(settings.layers[0] // 2, settings.layers[0] // 2, settings.layers[1:], settings.dropout)
        self.out = nn.Linear(settings.dim + settings.layers[-1], 1)

    def interaction(self, x: Tensor, w: Tensor) -> Tensor:
        product = x[..., : self.dim] * w[..., : self.dim]
        hidden = self.tower(x[..., self.dim :], w[..., self.dim :])
        logits: Tensor = self.out(torch.cat((product, hidden), -1)).squeeze(-1)
        return logits

    def start_from(self, parents: Sequence[tuple[type[Recommender], Published]]) -> None:
        """From a trained GMF and MLP, half of each output (He et al. 2017, section 3.4.1)."""
        by_class = dict(parents)
        if set(by_class) != {GMF, MLP} or len(parents) != 2:
            raise ValueError(f"a neumf starts from a gmf and an mlp, found {kinds_of(parents)}")
        gmf, mlp = GMF.restored(by_class[GMF]), MLP.restored(by_class[MLP])
        expected = [self.dim, *(tuple(each.shape) for each in self.tower.parameters())]
        found = [gmf.users.weight.shape[1], *(tuple(each.shape) for each in mlp.tower.parameters())]
        if found != expected:
            raise ValueError(
                f"found a gmf and an mlp of sizes {found}, expected {expected}: give all equal dim and layers"
            )
        with torch.no_grad():
            for own, first, second in ((self.users, gmf.users, mlp.users), (self.items, gmf.items, mlp.items)):
                own.weight.copy_(torch.cat((first.weight, second.weight), 1))
            self.tower.load_state_dict(mlp.tower.state_dict())
            self.out.weight.copy_(0.5 * torch.cat((gmf.out.weight, mlp.out.weight), 1))
            self.out.bias.copy_(0.5 * (gmf.out.bias + mlp.out.bias))


MODEL = Declaration(
    settings=NeumfSettings,
    feedback=("implicit",),
    module=NeuMF,
)
