"""A fitted model with the ids of its DataFrame: what `fit` returns."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.spark.dataset import Dataset
from sparkrec.spark.model import Model
from sparkrec.spark.queries import bind, field_head, known_users
from sparkrec.spark.retrieval import topk
from sparkrec.spark.sources import require_columns


@dataclass(frozen=True)
class Recommender:
    """A fitted model together with the ids of the DataFrame it was fitted to."""

    model: Model
    dataset: Dataset
    user: str
    item: str

    def recommend(self, k: int = 10, users: DataFrame | None = None, exclude_seen: bool = True) -> DataFrame:
        """The best k items of each user: the user column, rank (from 1), the item column, score.

        users   ids in a column of the name that `fit` was given; None: everyone
        """
        wanted = None
        if users is not None:
            require_columns(users, [self.user], "users")
            ids = users.select(F.col(self.user).alias("user_id")).distinct()
            wanted = self.dataset.users.join(ids, "user_id").select("user")
        seen = self.dataset.train.select("user", "item") if exclude_seen else None
        model = self.model
        if field_head(model) is not None:
            model = bind(model, known_users(self.dataset))
        best = topk(model, k, users=wanted, exclude=seen)
        named = best.join(self.dataset.users, "user").join(self.dataset.items, "item")
        return named.select(
            F.col("user_id").alias(self.user), "rank", F.col("item_id").alias(self.item), "score"
        ).orderBy(self.user, "rank")
