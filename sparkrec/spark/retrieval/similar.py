"""Users and items that are alike."""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.errors import InputError
from sparkrec.kernels.csr import Storage
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.retrieval.topk import rank


def similar(rows: DataFrame, size: int, layout: Storage, k: int, of: DataFrame | None = None) -> DataFrame:
    """The k rows of the largest cosine with each, but for itself: columns and ties as of `retrieval.rank`.

    rows  (id, index, value) of `size` dimensions
    of    (user) whose lists are wanted, ids of rows; None: of all
    """
    norm = F.sqrt(F.aggregate("value", F.lit(0.0), lambda total, x: total + x * x))
    unit = F.transform("value", lambda x: (x / F.when(norm > 0, norm).otherwise(1.0)).cast("float")).alias("value")
    users, items = (rows.select(F.col("id").alias(side), "index", unit) for side in ("user", "item"))
    itself = rows.select(F.col("id").alias("user"), F.col("id").alias("item"))
    return rank(Model(users, items, size, layout, layout), k, of, exclude=itself)


def neighbours(model: Model, side: str, k: int, of: DataFrame | None = None) -> DataFrame:
    """The k most similar users or items of a model: user, items, scores, one row each. By the cosine of their rows, or
    of their vectors where rows are vectors and biases; of a model of neighbours by the similarity that it was fitted
    with.

    side  "user" or "item"
    of    (user) whose lists are wanted, ids of that side; None: of all
    Raises InputError where rows say nothing of what somebody likes.
    """
    likeness = model.serving.likeness
    if likeness is None:
        assert model.settings is not None
        raise InputError(
            f"a {model.settings.kind} knows no vectors of users and items, by which they could be alike: fit another "
            "kind, such as als or itemknn"
        )
    table = model.users if side == "user" else model.items
    rows = table.select(F.col(side).alias("id"), "index", "value")
    if likeness.fitted_side == side:
        best = F.slice(F.sort_array(F.transform(F.arrays_zip("index", "value"), _nearest_first)), 1, k).alias("best")
        nearest = rows.select(F.col("id").alias("user"), best)
        if of is not None:
            nearest = nearest.join(of, "user", "left_semi")
        scores = F.transform("best", lambda one: -one["distance"]).alias("scores")
        return nearest.select("user", F.col("best.index").cast("array<long>").alias("items"), scores)
    layout = model.user_storage if side == "user" else model.item_storage
    if layout == "sparse":
        return similar(rows, model.size, layout, k, of)
    first, length = (1, model.size) if likeness.span is None else likeness.span(model.settings)
    return similar(rows.withColumn("value", F.slice("value", first, length)), length, layout, k, of)


def _nearest_first(one: Any) -> Any:
    return F.struct((-one["value"]).alias("distance"), one["index"].alias("index"))
