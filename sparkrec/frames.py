"""From a DataFrame to recommendations without a lake: for notebooks and first looks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.config import ModelSettings, SequenceSettings, TrainSettings
from sparkrec.configfile import validate
from sparkrec.errors import ConfigError, InputError
from sparkrec.fitting.registry import fit as fit_kind
from sparkrec.recommender import Recommender
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.data.ids import check_ids, numbered
from sparkrec.spark.data.keeping_back import keep_back
from sparkrec.spark.in_place import carry_out, computed
from sparkrec.spark.platform.before_spark_4 import try_cast
from sparkrec.spark.platform.keeping import scratch
from sparkrec.spark.platform.sources import column, numbers, resolved
from sparkrec.spark.runner import Rows

_ONE = pa.scalar(1.0, pa.float32())
_ABSENT = {"value": _ONE, "timestamp": pa.scalar(None, pa.timestamp("us", "UTC"))}
"""What takes the place of columns that a frame does not have."""


def fit(
    interactions: DataFrame,
    *,
    user: str = "user",
    item: str = "item",
    rating: str | None = None,
    timestamp: str | None = None,
    kind: str = "als",
    seed: int = 0,
    **settings: Any,
) -> Recommender:
    """Fit a model of a kind to a DataFrame of interactions.

    user, item  columns of ids: numbers, texts, dates or the like
    rating      column of ratings to predict; None: implicit feedback, each pair a preference of 1
    timestamp   column of times, or of numbers that grow with time; models of sequences need it, and take each row for
                an event (item2vec with `shuffle` does without)
    settings    those of the kind, as in `sparkrec.config`: rank=64, regularization=0.01, ...

    Settings that are left out suit the data: what was chosen is logged, and in `model.facts["chosen"]` of the result.
    For a network that stops early, which is how it knows when it has learned enough, the last row of up to 10,000 users
    who have five or more is kept back and not trained on.

    Rows with a null id are left out; of several rows of a pair the highest rating counts.
    Raises ConfigError for settings that do not fit, InputError for a column that is not there or holds no numbers, and
    for ratings that are null, NaN or infinite.
    """
    raw = {"lake": "none", "dataset": "frame", "model": {"kind": kind, **settings}}
    model_settings = validate(TrainSettings, raw, f"fit(kind={kind!r})").model
    interactions = resolved(interactions, [user, item, *filter(None, (rating, timestamp))], "interactions")
    for name in (user, item):
        check_ids(interactions.schema[name].dataType, name)
    cut = _cut(model_settings, timestamp)
    columns = {"user_id": column(user), "item_id": column(item)}
    if rating:
        columns["value"] = numbers(interactions, rating)
    if timestamp:
        columns["timestamp"] = try_cast(column(timestamp), "timestamp")
    rows = interactions.select(*(of.alias(name) for name, of in columns.items())).dropna(subset=["user_id", "item_id"])
    if rating:
        _refuse_what_is_no_rating(rows, user, item, rating)
    if cut is not None and cut.ordered and (untimed := rows.where("timestamp IS NULL").count()):
        raise InputError(f"{timestamp}: found {untimed:,} rows without a time, expected none. Drop them.")
    observed, nothing, users, items = carry_out("fit", partial(_numbered, once=cut is None), rows)
    train, validation = observed, nothing
    if model_settings.wants_validation:
        train, validation = carry_out("kept back", _kept_back, observed)
    feedback = {"kind": "explicit" if rating else "implicit"}
    folder = scratch(interactions.sparkSession)
    dataset = Dataset(
        reference="frame",
        folder=folder,
        manifest={"settings": {"feedback": feedback, "sequences": cut and cut.model_dump()}},
        train=train,
        validation=validation,
        test=nothing,
        users=users,
        items=items,
    )
    model = fit_kind(model_settings, dataset, seed=seed, scratch=folder)
    if model.folder is None:  # what every question reads is computed once
        model = replace(model, users=computed("model", model.users), items=computed("model", model.items))
    return Recommender(model, dataset, user, item, rating, timestamp)


def _cut(settings: ModelSettings, timestamp: str | None) -> SequenceSettings | None:
    """How sequences are cut for a model of them; None for others. Raises ConfigError where their order is not known."""
    needs = settings.sequence_needs
    if needs is None:
        return None
    if timestamp is None and needs.ordered:
        raise ConfigError(f"a {settings.kind} sees the order of events: pass timestamp=, the column that tells it")
    return SequenceSettings(**dict(needs.cut), ordered=timestamp is not None)


def _refuse_what_is_no_rating(rows: DataFrame, user: str, item: str, rating: str) -> None:
    """Raise InputError for ratings that are null, NaN, infinite or too large for 32 bits."""
    wrong = ~F.coalesce(F.abs("value") < float("inf"), F.lit(False))
    n, first = rows.agg(F.count_if(wrong), F.min(F.when(wrong, F.struct("user_id", "item_id", "value")))).collect()[0]
    if n:
        raise InputError(
            f"{rating}: {n:,} ratings cannot be used, the first of {user} {first.user_id!r}, {item} {first.item_id!r}: "
            f"found {first.value}, expected numbers of 32 bits. Drop these rows, or correct them."
        )


def _kept_back(rows: Rows) -> tuple[DataFrame, DataFrame]:
    train, kept = keep_back(rows)
    return train.frame(), kept.frame()


def _numbered(rows: Rows, once: bool) -> tuple[DataFrame, ...]:
    """The rows by numbers of users and items, none of them, and both tables of ids.

    rows  user_id, item_id; value, which is 1 where it is not there; timestamp, which is null then
    once  whether the rows of a pair become one, with the greatest value and time
    """
    rows = (rows.greatest("user_id", "item_id") if once else rows).kept()
    ids = {
        side: numbered(rows, f"{side}_id").select(**{side: "number", f"{side}_id": "id"}).kept()
        for side in ("user", "item")
    }
    observed = rows.joined(ids["user"], "user_id").joined(ids["item"], "item_id")
    observed = observed.filled(
        confidence=_ONE, **{name: each for name, each in _ABSENT.items() if name not in rows.columns}
    )
    observed = observed.select("user", "item", "value", "timestamp", "confidence").kept()
    counted = {side: observed.counted(side).select(side, train_count="n") for side in ids}
    users, items = (ids[side].joined(counted[side], side).frame() for side in ids)
    return observed.frame(), observed.none().frame(), users, items
