"""Mean + user + item: the part of a rating that needs no taste to explain (Koren 2010, section 2.1)."""

from __future__ import annotations

import logging
from typing import Literal

from pydantic import Field
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.config.model import Declaration, ModelSettings, UserRows
from sparkrec.errors import TrainError
from sparkrec.spark.data.fit_inputs import FitInputs
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import dense, sum_of_parts

log = logging.getLogger(__name__)

TOLERANCE = 1e-6
"""Sweeps end when none moves an item's bias by more than this many standard deviations of the values."""


class BiasSettings(ModelSettings):
    """Mean + user + item, by ridge regression: the residual of a rating after it is what other models explain."""

    kind: Literal["bias"] = "bias"
    user_regularization: float = Field(5.0, ge=0)
    """Shrinks a user's bias as that many ratings at the mean would."""
    item_regularization: float = Field(5.0, ge=0)
    """Shrinks an item's bias as that many ratings at the mean would."""
    iterations: int = Field(10, ge=1)
    """Alternating sweeps over items and users."""


def fit_bias(settings: BiasSettings, inputs: FitInputs) -> Model:
    """mean + b_u + b_i; users and items without ratings have bias 0. TrainError on implicit feedback."""
    dataset = inputs.dataset
    mean, user_bias, item_bias = biases(inputs.observed, settings)
    users, items = (each.withColumnRenamed("bias", "part") for each in (user_bias, item_bias))
    return sum_of_parts(dataset, mean, users, items, {})


def fold_users(model: Model, settings: BiasSettings, events: DataFrame, observed: DataFrame) -> DataFrame:
    """Rows of the users in `events` (user, item, value), the items as they are."""
    items = model.items.select("item", F.element_at("value", 1).alias("level"))
    left = events.join(items, "item").groupBy("user")
    bias = F.sum(F.col("value") - F.col("level")) / (F.count("*") + settings.user_regularization)
    return dense(left.agg(bias.alias("bias")), "user", 1.0, F.col("bias"))


def biases(observed: DataFrame, settings: BiasSettings) -> tuple[float, DataFrame, DataFrame]:
    """Mean of `value`, and biases (user, bias), (item, bias) of the users and items in `observed`.

    They minimise sum (value - mean - b_u - b_i)^2 + user_regularization sum b_u^2 + item_regularization sum
    b_i^2, by turns in closed form: b_i = sum_u (value - mean - b_u) / (n_i + item_regularization), and users
    likewise. Raises TrainError when there is no value, or but one.
    """
    mean, spread = observed.agg(F.avg("value"), F.stddev_pop("value")).collect()[0]
    if not spread:
        found = "there is no rating" if mean is None else f"all ratings are {mean:g}"
        raise TrainError(
            f"bias: {found}, so there is nothing to explain: it needs ratings that differ (prepare with "
            "feedback.kind explicit). For implicit feedback the baseline is model.kind popularity."
        )
    # Two copies, each laid out for the join it serves: a half-step moves biases and partial sums only.
    ratings = observed.select("user", "item", (F.col("value") - mean).alias("left"))
    by_user, by_item = ratings.repartition("user").persist(), ratings.repartition("item").persist()
    users, items = _zeros(by_user, "user"), _zeros(by_item, "item")
    try:
        for sweep in range(settings.iterations):
            items = _half_step(by_user, users, items, settings.item_regularization)
            users = _half_step(by_item, items, users, settings.user_regularization)
            shift, moved = _shift(users, items, settings)
            users = users.withColumn("bias", F.col("bias") - shift)
            items = items.withColumn("bias", F.col("bias") + shift)
            log.info("bias: sweep %s moved an item by %.2g standard deviations", sweep + 1, moved / spread)
            if moved < TOLERANCE * spread:
                break
    finally:
        by_user.unpersist()
        by_item.unpersist()
    return float(mean), users.select("user", "bias"), items.select("item", "bias")


def _zeros(ratings: DataFrame, key: str) -> DataFrame:
    return ratings.select(key).distinct().withColumn("bias", F.lit(0.0)).localCheckpoint()


def _half_step(ratings: DataFrame, src: DataFrame, dst: DataFrame, regularization: float) -> DataFrame:
    """Biases of `dst` with those of `src` fixed, beside those `before`. Its plan starts anew."""
    by, key = src.columns[0], dst.columns[0]
    solution = F.sum(F.col("left") - F.col("bias")) / (F.count("*") + regularization)
    solved = ratings.join(src.select(by, "bias"), by).groupBy(key).agg(solution.alias("solved"))
    moved = solved.join(dst, key).select(key, F.col("solved").alias("bias"), F.col("bias").alias("before"))
    return moved.localCheckpoint()


def _shift(users: DataFrame, items: DataFrame, settings: BiasSettings) -> tuple[float, float]:
    """What to move from all users to all items for the smallest penalty, and how far an item has then moved.

    No prediction depends on the shift, so turns alone would find it last: only the penalty holds it in place.
    """
    step = F.col("bias") - F.col("before")
    sums = [F.sum("bias"), F.count("*"), F.min(step), F.max(step)]
    by_side = users.agg(*sums).unionAll(items.agg(*sums)).collect()
    penalties = settings.user_regularization, settings.item_regularization
    weight = sum(penalty * side[1] for penalty, side in zip(penalties, by_side, strict=True))
    slope = penalties[0] * by_side[0][0] - penalties[1] * by_side[1][0]
    shift = slope / weight if weight else 0.0
    return shift, max(abs(most + shift) for most in by_side[1][2:])


MODEL = Declaration(
    settings=BiasSettings,
    feedback=("explicit",),
    fit=fit_bias,
    user_rows=UserRows(fold_users, "folded in"),
    likeness=None,
)
