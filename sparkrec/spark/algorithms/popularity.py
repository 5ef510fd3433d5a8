"""Most popular first, the same for everyone: the baseline that every model has to beat."""

from __future__ import annotations

from typing import Literal

from pyspark.sql import DataFrame

from sparkrec.config.model import Declaration, ModelSettings
from sparkrec.spark.data.fit_inputs import FitInputs
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import Constants, all_rows
from sparkrec.spark.platform.few import narrowed
from sparkrec.spark.runner import Rows


class PopularitySettings(ModelSettings):
    """Every user gets the most popular items."""

    kind: Literal["popularity"] = "popularity"


def fit_popularity(settings: PopularitySettings, inputs: FitInputs) -> Model:
    """Score of an item: how many interactions it has (exact up to 2^24, as floats are)."""
    dataset = inputs.dataset

    def plan(observed: Rows, users: Rows, items: Rows) -> tuple[DataFrame, DataFrame]:
        counted = observed.counted("item").map_rows(Constants("item", ("n",)))
        everyone = users.select("user").map_rows(Constants("user", (1.0,)))
        return everyone.frame(), all_rows(items, "item", counted, [0.0]).frame()

    users, items = carry_out(
        "popularity",
        plan,
        narrowed(inputs.observed, "item"),
        narrowed(dataset.users, "user"),
        narrowed(dataset.items, "item"),
    )
    return Model(users=users, items=items, size=1, user_storage="dense", item_storage="dense")


MODEL = Declaration(settings=PopularitySettings, feedback=("implicit", "explicit"), fit=fit_popularity, likeness=None)
