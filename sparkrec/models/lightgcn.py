"""Factors that are averaged over their neighbours in the graph of users and items."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sparkrec.config.data import DataFacts, significant
from sparkrec.config.model import Declaration
from sparkrec.models.base.graph import Graph
from sparkrec.models.base.recommender import ComputesTables, Recommender, Sizes
from sparkrec.models.base.settings import NetworkSettings


class LightgcnSettings(NetworkSettings):
    """LightGCN (He et al. 2020): factors averaged over the neighbours of users and items in their graph, and theirs."""

    kind: Literal["lightgcn"] = "lightgcn"
    dim: int = Field(64, ge=1)
    """Length of the vectors of users and items."""
    layers: int = Field(3, ge=1, le=8)
    """How many times the vectors are passed on to neighbours: 1 from items to those who have them, 2 on to what else
    these have."""

    def _usual(self, data: DataFacts) -> dict[str, Any]:
        # A step reads the whole graph, whatever the batch: few and large ones, with a rate that suits so few.
        batch = min(max(1 << round(math.log2(max(data.rows / 16, 1))), 512), 65_536)
        l2 = significant(7e-4 * data.scarcity)
        usual: dict[str, Any] = {"loss": "bpr", "negatives": 1, "optimizer": "adam", "learning_rate": 0.01}
        return usual | {"batch": batch, "init_scale": 0.1, "user_l2": l2, "item_l2": l2}


class LightGCN(Recommender):
    """<x_u, w_i>, where x and w are means over the layers k of x^k and w^k (He et al. 2020, eq. 3, 4 and 7):
    x^(k+1)_u = sum over the items i of u of w^k_i / sqrt(|N_u| |N_i|), and w^(k+1)_i likewise over the users of i.

    Every step reads the whole graph. L2 is on x^0 and w^0 of what the batch reads (eq. 15).
    """

    computes_tables: ClassVar[ComputesTables] = "in steps"

    def __init__(self, settings: LightgcnSettings, sizes: Sizes) -> None:
        super().__init__(sizes.users, settings.dim, sizes.items, settings.dim)
        self.layers = settings.layers

    def tables(self, x: Tensor, w: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
        # A node without neighbours has nothing but its own vector, in layer 0.
        by_user, by_item = (
            degrees.clamp(min=1.0).rsqrt()[:, None] for degrees in (graph.user_degrees, graph.item_degrees)
        )
        users, items = [x], [w]
        for _ in range(self.layers):
            x, w = by_user * graph.to_users(by_item * w), by_item * graph.to_items(by_user * x)
            users.append(x)
            items.append(w)
        return torch.stack(users).mean(0), torch.stack(items).mean(0)

    def interaction(self, x: Tensor, w: Tensor) -> Tensor:
        return (x * w).sum(-1)

    def vectors(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        return x, w


MODEL = Declaration(
    settings=LightgcnSettings,
    feedback=("implicit",),
    module=LightGCN,
)
