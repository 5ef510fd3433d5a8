"""Most popular first, the same for everyone: the baseline that every model has to beat."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.config import PopularitySettings
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import dense


def fit_popularity(
    settings: PopularitySettings, dataset: Dataset, observed: DataFrame, *, seed: int, scratch: str
) -> Model:
    """Score of an item: how many interactions it has (exact up to 2^24, as floats are)."""
    counts = observed.groupBy("item").agg(F.count("*").alias("count"))
    items = dataset.items.join(counts, "item", "left")
    return Model(
        users=dense(dataset.users, "user", 1.0),
        items=dense(items, "item", F.coalesce("count", F.lit(0))),
        size=1,
        user_layout="dense",
        item_layout="dense",
    )
