"""Groups of users by how much they did, and of items by how often they were had."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec.spark.data.dataset import Dataset


def grouped(truth: DataFrame, dataset: Dataset, segments: int) -> DataFrame:
    """The rows and the groups of their users and items, from 1; 0 when there is but one."""
    if segments == 1:
        return truth.withColumns({"user_group": F.lit(0), "item_group": F.lit(0)})
    users = truth.select("user").distinct().join(dataset.users.select("user", "train_count"), "user", "left")
    users = users.fillna(0, ["train_count"])
    counts = users.groupBy("train_count").count().withColumn("side", F.lit("user"))
    rows = counts.unionByName(dataset.items.groupBy("train_count").count().withColumn("side", F.lit("item"))).collect()

    def group(side: str) -> Column:
        bounds = bounds_of([(row["train_count"], row["count"]) for row in rows if row["side"] == side], segments)
        place = sum(((F.col("train_count") > bound).cast("int") for bound in bounds), F.lit(1))
        return place.alias(f"{side}_group")

    truth = truth.join(users.select("user", group("user")), "user")
    return truth.join(dataset.items.select("item", group("item")), "item", "left").fillna(0, ["item_group"])


def labels(segments: int, *sides: str) -> Column:
    """Segments of a row: `all`, and that of its user or item."""
    return F.array_compact(F.array(F.lit("all"), *(label(segments, side) for side in sides)))


def label(segments: int, side: str) -> Column:
    """The group of a row's user or item; null where there is but one."""
    named = F.concat(F.lit(f"{side}s:"), f"{side}_group", F.lit(f"/{segments}"))
    return F.when(F.col(f"{side}_group") > 0, named)


def bounds_of(counts: list[tuple[int, int]], segments: int) -> list[int]:
    """The largest train count of each group but the last: a count goes where the middle of those who have it is."""
    total = sum(n for _, n in counts)
    bounds = [-1] * (segments - 1)
    before = 0
    for count, n in sorted(counts):
        group = int(segments * (before + n / 2) / total)
        bounds[group:] = [count] * len(bounds[group:])
        before += n
    return bounds
