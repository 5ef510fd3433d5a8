"""Items similar to what the user has (Sarwar et al. 2001); `_neighbors` says how they are found."""

from __future__ import annotations

from typing import Literal

from pyspark.sql import DataFrame

from sparkrec.config.model import Declaration, Likeness, UserRows
from sparkrec.spark.algorithms._neighbors import NeighborSettings, divided_votes, fit_neighbors
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.data.fit_inputs import FitInputs
from sparkrec.spark.model.explain import contributions_of_items
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import lists, strengths


class ItemKnnSettings(NeighborSettings):
    """Items similar to what the user has, by cosine with shrinkage, blockwise on Spark (Sarwar et al. 2001)."""

    kind: Literal["itemknn"] = "itemknn"


def fit_itemknn(settings: ItemKnnSettings, inputs: FitInputs) -> Model:
    """score(u, i) = sum of strength(u, j) similarity(i, j) / t_j over the neighbours j of i that u has."""
    return fit_neighbors("item", "user", settings, inputs)


def item_votes(model: Model, settings: ItemKnnSettings, events: DataFrame, observed: DataFrame) -> DataFrame:
    """Rows of itemknn of the users in `events` (user, item, value, confidence): their histories."""
    nearest = model.items.select("index", "value")
    return lists(divided_votes(strengths(events), "item", nearest, settings.normalization), "user", "item", "strength")


def explain(model: Model, dataset: Dataset, user: int, item: int) -> DataFrame:
    """(item, contribution) of the items that a user has; a position of a row is an item."""
    return contributions_of_items(model, user, item, range(model.size))


MODEL = Declaration(
    settings=ItemKnnSettings,
    feedback=("implicit", "explicit"),
    fit=fit_itemknn,
    user_rows=UserRows(item_votes, "history"),
    likeness=Likeness(fitted_side="item"),
    explain=explain,
)
