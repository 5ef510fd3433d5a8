"""Three kinds of model that sparkrec does not have, as a package of somebody else would bring them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pyspark.sql import functions as F
from torch import Tensor, nn

from sparkrec.config import Declaration, ModelSettings
from sparkrec.models.base.graph import Rows
from sparkrec.models.base.recommender import Recommender, Sizes
from sparkrec.models.base.row_model import RowModel
from sparkrec.models.base.settings import NetworkSettings
from sparkrec.spark.data.fit_inputs import FitInputs
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import dense


class TrendingSettings(ModelSettings):
    """Most popular first, and what was had of late counts more."""

    kind: Literal["trending"] = "trending"
    days: float = Field(7.0, gt=0)
    """An interaction so long before the last one counts half."""


def fit_trending(settings: TrendingSettings, inputs: FitInputs) -> Model:
    """Score of an item: the sum over its interactions of 2^(-age / days)."""
    last = inputs.observed.agg(F.max("timestamp").alias("last"))
    age = (F.unix_micros("last") - F.unix_micros("timestamp")) / F.lit(86_400e6)
    aged = inputs.observed.crossJoin(last).withColumn("weight", F.pow(F.lit(2.0), -age / settings.days))
    scores = aged.groupBy("item").agg(F.sum("weight").alias("score"))
    items = inputs.dataset.items.join(scores, "item", "left")
    return Model(
        users=dense(inputs.dataset.users, "user", 1.0),
        items=dense(items, "item", F.coalesce("score", F.lit(0.0))),
        size=1,
        user_storage="dense",
        item_storage="dense",
    )


TRENDING = Declaration(settings=TrendingSettings, feedback=("implicit", "explicit"), fit=fit_trending, likeness=None)


class InnerSettings(NetworkSettings):
    """Inner products of vectors, and nothing else; without `vectors`, so that a scorer has to know it."""

    kind: Literal["inner"] = "inner"
    dim: int = Field(8, ge=1)
    """Length of the vectors."""


class Inner(Recommender):
    """p_u . q_i"""

    def __init__(self, settings: InnerSettings, sizes: Sizes) -> None:
        super().__init__(sizes.users, settings.dim, sizes.items, settings.dim)

    def interaction(self, x: Tensor, w: Tensor) -> Tensor:
        return (x * w).sum(-1)


INNER = Declaration(settings=InnerSettings, feedback=("implicit",), module=Inner)


class NonlinearSettings(NetworkSettings):
    """A vector of the user, and a layer on all that the user has that is not linear; scores are no inner products."""

    kind: Literal["nonlinear"] = "nonlinear"
    dim: int = Field(8, ge=1)
    """Length of the vectors."""


class Nonlinear(RowModel):
    """b_i - |tanh(H sum_j v_j + p_u) - q_i|^2; rows of items are (v, q, b)."""

    def __init__(self, settings: NonlinearSettings, sizes: Sizes) -> None:
        super().__init__(sizes.users, settings.dim, sizes.items, 2 * settings.dim + 1)
        self.dim, self.hidden = settings.dim, nn.Linear(settings.dim, settings.dim)

    def states(self, x: Tensor, rows: Rows) -> Tensor:
        return (self.hidden(self.pooled(rows, rows.confidence)[:, : self.dim]) + x).tanh()

    def interaction(self, x: Tensor, w: Tensor) -> Tensor:
        return w[..., -1] - (x - w[..., self.dim : -1]).square().sum(-1)


NONLINEAR = Declaration(settings=NonlinearSettings, feedback=("implicit",), module=Nonlinear)
