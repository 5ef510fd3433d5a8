"""Most popular first, the same for everyone: the baseline that every model has to beat."""

from __future__ import annotations

from typing import Literal

from pyspark.sql import functions as F

from sparkrec.config.model import Declaration, ModelSettings
from sparkrec.spark.data.fit_inputs import FitInputs
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import dense


class PopularitySettings(ModelSettings):
    """Every user gets the most popular items."""

    kind: Literal["popularity"] = "popularity"


def fit_popularity(settings: PopularitySettings, inputs: FitInputs) -> Model:
    """Score of an item: how many interactions it has (exact up to 2^24, as floats are)."""
    counts = inputs.observed.groupBy("item").agg(F.count("*").alias("count"))
    items = inputs.dataset.items.join(counts, "item", "left")
    return Model(
        users=dense(inputs.dataset.users, "user", 1.0),
        items=dense(items, "item", F.coalesce("count", F.lit(0))),
        size=1,
        user_storage="dense",
        item_storage="dense",
    )


MODEL = Declaration(settings=PopularitySettings, feedback=("implicit", "explicit"), fit=fit_popularity, likeness=None)
