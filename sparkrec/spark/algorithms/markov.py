"""First-order Markov chain: what came next, of all who did the same last."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from sparkrec.config import MarkovSettings
from sparkrec.errors import TrainError
from sparkrec.spark.data.dataset import Dataset, check_sequences
from sparkrec.spark.data.sequences import histories, ordered
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.histories import last_events
from sparkrec.spark.model.rows import lists, sparse


def fit_markov(settings: MarkovSettings, dataset: Dataset, observed: DataFrame, *, seed: int, scratch: str) -> Model:
    """score(u, i) = (1 - popularity) n(last event of u, i) / n(last event of u) + popularity n(i) / n

    with n(j, i) the times that i came next after j, in one session. Rows have a place for each item, as what came
    before, and one more for popularity. Raises ConfigError where the dataset has no sequences.
    """
    cut = check_sequences(settings, dataset.sequence_settings, dataset.reference)
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
        user_layout="sparse",
        item_layout="sparse",
        by_last_event=True,
    )
