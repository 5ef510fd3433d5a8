"""From logged events to the interactions of a dataset: weights, duplicates, feedback, k-core.

Frames in and out have `user_id` and `item_id`. Nothing here depends on the order or the partitioning of rows.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from sparkrec.config import ExplicitFeedback, ImplicitFeedback
from sparkrec.errors import PrepareError
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.runner import Rows

log = logging.getLogger(__name__)

PAIR = ["user_id", "item_id"]
_TYPES = {
    "user_id": ("bigint", "string"),
    "item_id": ("bigint", "string"),
    "rating": ("double",),
    "timestamp": ("timestamp",),
    "event": ("string",),
}


def type_of(frame: DataFrame, column: str) -> str:
    """Type of a column as SQL spells it, or `missing`."""
    return frame.schema[column].dataType.simpleString() if column in frame.columns else "missing"


def check_columns(events: DataFrame, table: str) -> None:
    """Raise PrepareError when a table is not one that ingest writes."""
    for column, types in _TYPES.items():
        found = type_of(events, column)
        if found not in types:
            raise PrepareError(
                f"column {column!r} of table {table!r} is {found}, expected {' or '.join(types)}. "
                "Name a table that `sparkrec ingest` wrote."
            )


def check_timestamps(events: DataFrame, table: str, needed_by: Sequence[str]) -> None:
    """Raise PrepareError when what needs timestamps finds nulls."""
    absent = F.col("timestamp").isNull()
    rows, missing, first = events.agg(F.count("*"), F.count_if(absent), first_pair(absent)).collect()[0]
    if missing:
        raise PrepareError(
            f"{' and '.join(needed_by)} cannot do without timestamps, but 'timestamp' is null in {missing:,} "
            f"of {rows:,} interactions of {table!r} (first: user {first[0]!r}, item {first[1]!r}). Drop them "
            "at ingest (on_null_timestamp: reject), or use dedup 'max' and split 'ratio'."
        )


def first_pair(condition: Column) -> Column:
    """The smallest user and item for which a condition holds, as an aggregate."""
    return F.min(F.when(condition, F.struct(*PAIR)))


def weigh(events: DataFrame, weights: dict[str, float]) -> DataFrame:
    """Ratings times the weight of their event's kind; rows of weight 0 are dropped.

    Raises PrepareError with the kinds that have no weight.
    """
    kind = F.col("event")
    weight = F.lit(None).cast("double")
    for name, value in weights.items():
        weight = F.when(kind == name, value).otherwise(weight)
    unlisted = events.where(weight.isNull()).groupBy(kind).count().orderBy(F.desc("count"), kind).limit(11)
    if found := unlisted.collect():
        kinds = [f"{'null' if row[0] is None else repr(row[0])} ({row[1]:,} rows)" for row in found[:10]]
        more = ", and more" if len(found) > 10 else ""
        listed = ", ".join(map(repr, weights)) or "none"
        raise PrepareError(
            f"event_weights lists {listed}, but there are events of kind {', '.join(kinds)}{more}. "
            "Give each kind a weight; 0 drops it."
        )
    return events.where(weight != 0).withColumn("rating", F.col("rating") * weight)


def deduplicate(events: DataFrame, policy: Literal["last", "sum", "max", "none"]) -> DataFrame:
    """One row a user and item: user_id, item_id, rating, timestamp, and `context` where events have one.

    last  the latest, of equally late ones that of the highest rating
    sum   the sum of the ratings, at the latest timestamp and in its context
    max   the highest rating, at the latest timestamp and in its context
    none  all rows as they are
    """
    context = _context(events)
    if policy == "none":
        return events.select(*PAIR, "rating", "timestamp", *context)
    # Brought together first: Spark sorts for such aggregates, and would do so before it moves the rows, too.
    pairs = events.repartition(*PAIR).groupBy(*PAIR)
    if policy == "last":
        last = pairs.agg(F.max(F.struct("timestamp", "rating", *context)).alias("last"))
        return last.select(*PAIR, "last.rating", "last.timestamp", *(f"last.{name}" for name in context))
    rating = F.max("rating")
    if policy == "sum":
        # Sorted first: the sum of floating-point numbers depends on their order.
        rating = F.aggregate(F.array_sort(F.collect_list("rating")), F.lit(0.0), lambda a, b: a + b)
    merged = pairs.agg(rating.alias("rating"), F.max(F.struct("timestamp", *context)).alias("last"))
    return merged.select(*PAIR, "rating", "last.*")


def _context(frame: DataFrame) -> list[str]:
    return [name for name in frame.columns if name == "context"]


def to_feedback(interactions: DataFrame, feedback: ExplicitFeedback | ImplicitFeedback) -> DataFrame:
    """user_id, item_id, value, confidence, timestamp and `context` where there is one; null where a value or
    confidence is not defined."""
    rating = F.col("rating")
    value, confidence = F.lit(1.0), F.lit(1.0)
    if isinstance(feedback, ExplicitFeedback):
        if feedback.scale == "identity":
            value = rating
        elif feedback.scale == "log":
            value = F.when(rating >= 0, F.log1p(rating))
        else:
            value = _quantile(feedback.levels)
    else:
        if feedback.threshold is not None:
            interactions = interactions.where(rating >= feedback.threshold)
        if feedback.confidence == "linear":
            confidence = F.when(rating >= 0, 1 + feedback.alpha * rating)
        elif feedback.confidence == "log":
            confidence = F.when(rating >= 0, 1 + feedback.alpha * F.log1p(rating / feedback.epsilon))
    return interactions.select(
        *PAIR,
        value.cast("float").alias("value"),
        confidence.cast("float").alias("confidence"),
        "timestamp",
        *_context(interactions),
    )


def _quantile(levels: int) -> Column:
    """1 to `levels` by the share of the user's ratings that lie below, ties counted half."""
    own = Window.partitionBy("user_id")
    ordered = own.orderBy("rating")
    below, not_above = F.rank().over(ordered) - 1, F.count("*").over(ordered)
    return 1 + F.floor((below + not_above) * levels / (2 * F.count("*").over(own)))


def core(interactions: DataFrame, min_user: int, min_item: int) -> DataFrame:
    """The largest part in which every user has `min_user` interactions and every item `min_item`.

    Raises PrepareError when that is nothing.
    """
    limits = {column: least for column, least in zip(PAIR, (min_user, min_item), strict=True) if least > 1}
    if not limits:
        return interactions

    def plan(rows: Rows) -> DataFrame:
        rest = rows.computed()  # a plan that grows each round doubles each round
        found = left = rest.count()
        while left:
            kept = rest
            for column, least in limits.items():
                kept = kept.without(kept.counted(column).where_below("n", least), column)
            rest = kept.computed()
            before, left = left, rest.count()
            log.info("k-core: %d of %d interactions left", left, before)
            if left == before or len(limits) == 1:
                break
        if found and not left:
            users, items = (rows.counted(column).described("n")[0] for column in PAIR)
            raise PrepareError(
                f"nothing is left of {found:,} interactions of {users.rows:,} users with {items.rows:,} items when "
                f"each user needs {min_user} and each item {min_item}: the most that a user has is {users.most:,.0f}, "
                f"an item {items.most:,.0f}. Lower min_user_interactions or min_item_interactions."
            )
        return rest.frame()

    return carry_out("k-core", plan, interactions)


def candidates(events: DataFrame, table: str, column: str) -> DataFrame:
    """user_id and item_id, once each, of what is to be ranked for a user: the events' items and their lists.

    Raises PrepareError when the column does not hold a list of item ids for every event.
    """
    item = type_of(events, "item_id")
    expected = ["array<string>"] if item == "string" else ["array<bigint>", "array<int>"]
    found = type_of(events, column)
    if found not in expected:
        raise PrepareError(
            f"candidates column {column!r} of table {table!r} is {found}, expected {expected[0]} as item_id "
            f"is {item}. Name a context column that holds item ids."
        )
    listed = F.col(column).cast(expected[0])
    broken = listed.isNull() | (F.size(listed) == 0) | F.exists(listed, lambda each: each.isNull())
    rows, unusable, first = events.agg(F.count("*"), F.count_if(broken), first_pair(broken)).collect()[0]
    if unusable:
        raise PrepareError(
            f"candidates column {column!r} of table {table!r} is null, empty or holds nulls in {unusable:,} "
            f"of {rows:,} rows (first: user {first[0]!r}, item {first[1]!r}). Give every test row its list."
        )
    ranked = F.explode(F.array_append(listed, F.col("item_id")))
    return events.select("user_id", ranked.alias("item_id")).distinct()
