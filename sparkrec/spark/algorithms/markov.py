"""First-order Markov chain: what came next, of all who did the same last."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from sparkrec.config.base import Fraction
from sparkrec.config.model import Declaration, ModelSettings, SequenceNeeds
from sparkrec.errors import TrainError
from sparkrec.exported.histories import LastEvent
from sparkrec.spark.data.fit_inputs import FitInputs
from sparkrec.spark.data.ids import ascending
from sparkrec.spark.data.sequences import histories, ordered
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import lists, sparse


class MarkovSettings(ModelSettings):
    """First-order Markov chain: the items that most often came next after a user's last event."""

    kind: Literal["markov"] = "markov"
    popularity: Fraction = 0.01
    """How much the popularity of an item counts beside that: it ranks what never came next."""

    @property
    def sequence_needs(self) -> SequenceNeeds:
        return SequenceNeeds(windows=None)


def fit_markov(settings: MarkovSettings, inputs: FitInputs) -> Model:
    """score(u, i) = (1 - popularity) n(last event of u, i) / n(last event of u) + popularity n(i) / n

    with n(j, i) the times that i came next after j, in one session. Rows have a place for each item, as what came
    before, and one more for popularity. Raises ConfigError where the dataset has no sequences.
    """
    dataset, observed = inputs.dataset, inputs.observed
    cut = settings.sequence_needs.check(dataset.sequence_settings, settings.kind, dataset.reference)
    size = int(dataset.items.agg(F.max("item")).collect()[0][0]) + 2
    if size > 2**31 - 1:
        raise TrainError(f"markov: item {size - 2} is beyond 2^31 - 3, the largest position of a sparse row")
    in_order = ordered(observed, cut)
    before = Window.partitionBy("user", "session").orderBy("time", "item")
    pairs = in_order.withColumn("before", F.lag("item").over(before)).where("before IS NOT NULL")
    counts = pairs.groupBy("before", "item").count()
    share = F.col("count") / F.sum("count").over(Window.partitionBy("before")) * (1.0 - settings.popularity)
    after = counts.select("item", F.col("before").alias("place"), share.alias("value"))
    popular = observed.groupBy("item").count().crossJoin(observed.agg(F.count("*").alias("n")))
    of_all = popular.select("item", F.lit(size - 1), F.col("count") / F.col("n") * settings.popularity)
    return Model(
        users=last_events(dataset.users.select("user"), histories(observed, cut), size),
        items=sparse(dataset.items, "item", lists(after.unionAll(of_all), "item", "place", "value")),
        size=size,
        user_storage="sparse",
        item_storage="sparse",
    )


def last_events(users: DataFrame, asking: DataFrame, size: int) -> DataFrame:
    """Sparse model rows of the users: 1 at the last of their items, and at the last of all `size` places.

    users   (user)
    asking  (user, items array<long>)
    """
    last = F.element_at("items", -1).cast("int")
    index = F.when(F.col("items").isNull(), F.array(F.lit(size - 1))).otherwise(F.array(last, F.lit(size - 1)))
    rows = users.join(asking, "user", "left").withColumn("index", index)
    return rows.select("user", "index", F.array_repeat(F.lit(1.0).cast("float"), F.size("index")).alias("value"))


def bind(model: Model, histories: DataFrame) -> Model:
    """The model for users who ask after these histories (user, items array<long>)."""
    return replace(model, users=last_events(histories.select("user"), histories, model.size))


def exported(model: Model, settings: MarkovSettings, observed: DataFrame) -> LastEvent:
    """As `bind`, without Spark."""
    return LastEvent(ascending(model.items, "item").astype(np.int32), model.size)


MODEL = Declaration(settings=MarkovSettings, feedback=("implicit",), fit=fit_markov, bind=bind, exported=exported)
