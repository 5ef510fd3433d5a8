"""From a DataFrame to recommendations without a lake: for notebooks and first looks."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.config import TrainSettings
from sparkrec.configfile import validate
from sparkrec.spark.dataset import Dataset
from sparkrec.spark.ids import number
from sparkrec.spark.model import Model
from sparkrec.spark.queries import bind, field_head, known_users
from sparkrec.spark.retrieval import topk
from sparkrec.spark.sources import require_columns
from sparkrec.stages.registry import fit as fit_kind


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


def fit(
    interactions: DataFrame,
    *,
    user: str = "user",
    item: str = "item",
    rating: str | None = None,
    kind: str = "als",
    seed: int = 0,
    **settings: Any,
) -> Recommender:
    """Fit a model of a kind to a DataFrame of interactions.

    user, item  columns of ids, of any type that can be compared
    rating      column of ratings to predict; None: implicit feedback, each pair a preference of 1
    settings    those of the kind, as in `sparkrec.config`: rank=64, regularization=0.01, ...

    Rows with a null id are left out; of several rows of a pair the highest rating counts.
    Raises ConfigError for settings that do not fit, InputError for a column that is not there.
    """
    raw = {"lake": "none", "dataset": "frame", "model": {"kind": kind, **settings}}
    model_settings = validate(TrainSettings, raw, f"fit(kind={kind!r})").model
    require_columns(interactions, [user, item, *([rating] if rating else [])], "interactions")
    rows = interactions.select(
        F.col(user).alias("user_id"),
        F.col(item).alias("item_id"),
        (F.col(rating) if rating else F.lit(1.0)).cast("float").alias("value"),
    ).dropna(subset=["user_id", "item_id"])
    rows = rows.groupBy("user_id", "item_id").agg(F.max("value").alias("value")).persist()
    users = number(rows.select("user_id").distinct(), "user").persist()
    items = number(rows.select("item_id").distinct(), "item").persist()
    observed = rows.join(users, "user_id").join(items, "item_id").select("user", "item", "value")
    confidence, timestamp = F.lit(1.0).cast("float"), F.lit(None).cast("timestamp")
    train = observed.withColumns({"confidence": confidence, "timestamp": timestamp}).persist()
    feedback = {"kind": "explicit" if rating else "implicit"}
    scratch = tempfile.mkdtemp(prefix="sparkrec-")
    dataset = Dataset(
        reference="frame",
        folder=scratch,
        manifest={"settings": {"feedback": feedback}},
        train=train,
        validation=train.limit(0),
        test=train.limit(0),
        users=_with_counts(users, train, "user"),
        items=_with_counts(items, train, "item"),
    )
    return Recommender(fit_kind(model_settings, dataset, train, seed=seed, scratch=scratch), dataset, user, item)


def _with_counts(ids: DataFrame, train: DataFrame, side: str) -> DataFrame:
    return ids.join(train.groupBy(side).agg(F.count("*").alias("train_count")), side)
