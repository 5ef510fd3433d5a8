"""Items similar to what the user has (Sarwar et al. 2001); `_neighbors` says how they are found."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pyspark.sql import DataFrame

from sparkrec.config.model import Declaration, Likeness, UserRows
from sparkrec.exported.histories import Entries
from sparkrec.spark.algorithms._neighbors import NeighborSettings, divided_votes, fit_neighbors
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.data.fit_inputs import FitInputs
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.model.explain import contributions_of_items
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import lists, strengths
from sparkrec.spark.platform.few import narrowed
from sparkrec.spark.runner import Rows


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


def exported(model: Model, settings: ItemKnnSettings, observed: DataFrame) -> Entries:
    """As `item_votes`, without Spark."""

    def plan(items: Rows) -> Entries:
        table = items.table()
        at = np.sort(table["item"].to_numpy())
        total = np.zeros(model.size)
        index, value = (table[name].combine_chunks().flatten().to_numpy() for name in ("index", "value"))
        np.add.at(total, index, np.abs(value))
        divisor = np.where(total > 0, total, 1.0) ** settings.normalization
        return Entries(at.astype(np.int32), divisor[at])

    return carry_out("itemknn", plan, narrowed(model.items, "item", "index", "value"))


def explain(model: Model, dataset: Dataset, user: int, item: int) -> DataFrame:
    """(item, contribution) of the items that a user has; a position of a row is an item."""
    return contributions_of_items(model, user, item, range(model.size))


MODEL = Declaration(
    settings=ItemKnnSettings,
    feedback=("implicit", "explicit"),
    fit=fit_itemknn,
    user_rows=UserRows(item_votes, "history"),
    exported=exported,
    likeness=Likeness(fitted_side="item"),
    explain=explain,
)
