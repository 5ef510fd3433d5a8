"""From a DataFrame to recommendations without a lake: for notebooks and first looks."""

from __future__ import annotations

import tempfile
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.config import TrainSettings
from sparkrec.configfile import validate
from sparkrec.recommender import Recommender
from sparkrec.spark.dataset import Dataset
from sparkrec.spark.ids import number
from sparkrec.spark.sources import require_columns
from sparkrec.stages.registry import fit as fit_kind


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
    return Recommender(fit_kind(model_settings, dataset, seed=seed, scratch=scratch), dataset, user, item)


def _with_counts(ids: DataFrame, train: DataFrame, side: str) -> DataFrame:
    return ids.join(train.groupBy(side).agg(F.count("*").alias("train_count")), side)
