"""What users with similar taste have; `_neighbors` says how these are found."""

from __future__ import annotations

from typing import Literal

from pyspark.sql import DataFrame

from sparkrec.config.model import Declaration, Likeness, UserRows
from sparkrec.spark.algorithms._neighbors import NeighborSettings, fit_neighbors, neighbors
from sparkrec.spark.data.fit_inputs import FitInputs
from sparkrec.spark.data.matrix_rows import EVENT
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.platform.few import narrowed
from sparkrec.spark.runner import Rows


class UserKnnSettings(NeighborSettings):
    """What users with similar taste have, by cosine with shrinkage, blockwise on Spark."""

    kind: Literal["userknn"] = "userknn"


def fit_userknn(settings: UserKnnSettings, inputs: FitInputs) -> Model:
    """score(u, i) = sum of strength(v, i) similarity(u, v) / t_v over the neighbours v of u that have i."""
    return fit_neighbors("user", "item", settings, inputs)


def nearest_users(model: Model, settings: UserKnnSettings, events: DataFrame, observed: DataFrame) -> DataFrame:
    """Rows of userknn of the users in `events` (user, item, value, confidence): the users most similar to them among
    those in `observed`, which the model was fitted to."""

    def plan(observed: Rows, events: Rows) -> DataFrame:
        matrix, queries = (each.select("value", "confidence", row="user", column="item") for each in (observed, events))
        return neighbors(matrix, settings, None, queries).select("index", "value", user="row").frame()

    return carry_out("userknn", plan, narrowed(observed, *EVENT), narrowed(events, *EVENT))


MODEL = Declaration(
    settings=UserKnnSettings,
    feedback=("implicit", "explicit"),
    fit=fit_userknn,
    user_rows=UserRows(nearest_users, "history"),
    likeness=Likeness(fitted_side="user"),
)
