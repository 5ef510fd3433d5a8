"""Users as they ask: by the row that was fitted to them, by one made of their history, or by one that is folded in.

A model needs no row of a user where the row says no more than the history does; there it is made of what the user has
done by now. Where the best row for a history has a closed form, it is solved for, with the items as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.spark.algorithms import bias, ease, neighbors
from sparkrec.spark.algorithms.als import fit as als
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.data.sequences import histories
from sparkrec.spark.model.field_queries import field_head
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.histories import bind as bind_histories
from sparkrec.spark.model.histories import sees_histories

ANSWERS = ("model", "history", "folded in")
"""What answers a user: the model, which was fitted to it; the history of one to whom it was not; a row that was folded
in."""


class _Maker(NamedTuple):
    make: Callable[[Model, Any, DataFrame, DataFrame], DataFrame]
    """(model, settings, events, observed) -> model rows (user, index, value) of the users in `events` (user, item,
    value, confidence), items of `observed`, which the model was fitted to."""
    by: str
    """One of ANSWERS."""


_MAKERS: dict[str, _Maker] = {
    "als": _Maker(als.fold_users, "folded in"),
    "bias": _Maker(bias.fold_users, "folded in"),
    "ease": _Maker(ease.user_rows, "history"),
    "itemknn": _Maker(neighbors.item_votes, "history"),
    "userknn": _Maker(neighbors.nearest_users, "history"),
}
"""By kind, of models whose users' rows follow from what they did; models of sequences are asked by `sequences.bind`."""

KINDS = f"{', '.join(_MAKERS)} or a model of sequences"
"""That answer from a history, for messages."""


@dataclass(frozen=True)
class Served:
    """A model with a row for each user that it can answer."""

    model: Model
    users: DataFrame
    """(user, by): which of those who ask these are, and which of ANSWERS is theirs."""


def follows_history(model: Model) -> bool:
    """Whether what a user did since the fit can change what the model answers."""
    return sees_histories(model) or _maker(model) is not None


def serve(
    model: Model,
    dataset: Dataset,
    users: DataFrame,
    events: DataFrame,
    *,
    include_validation: bool = False,
    anew: DataFrame | None = None,
) -> Served:
    """The model for those who ask. Models of features are for `queries.bind`, and are left as they are.

    users               (user) who asks; they need not be in the dataset
    events              (user, item, value, confidence, timestamp) what they did, items of the dataset
    include_validation  whether the model was fitted to train and validation together
    anew                (user) whose rows are made from `events`, even if the model was fitted to them; None: nobody's
    """
    users = users.select("user").distinct()
    fitted = dataset.fitted("user", include_validation)
    by_model = F.lit("model").alias("by")
    if sees_histories(model):
        cut = dataset.sequence_settings
        assert cut is not None
        shown = histories(events.join(users, "user", "left_semi"), cut)
        own = fitted.select("user", by_model)
        answered = shown.select("user").join(own, "user", "left").select("user", F.coalesce("by", F.lit("history")))
        return Served(bind_histories(model, shown), answered.toDF("user", "by"))
    if _knows_users_by_features(model):
        fitted = dataset.users
    own = users.join(fitted, "user", "left_semi").select("user", by_model)
    maker = _maker(model)
    if maker is None:
        return Served(model, own)
    wanted = users.join(own, "user", "left_anti")
    if anew is not None:
        wanted = wanted.unionByName(users.join(anew, "user", "left_semi"))
    wanted = wanted.distinct().localCheckpoint()
    if wanted.isEmpty():
        return Served(model, own)
    items = dataset.fitted("item", include_validation)
    told = events.join(wanted, "user", "left_semi").join(items, "item", "left_semi")
    if told.isEmpty():
        return Served(model, own)
    made = maker.make(model, model.settings, told, dataset.observed(include_validation)).localCheckpoint()
    rest = model.users.join(made, "user", "left_anti")
    answered = own.join(made, "user", "left_anti").unionByName(made.select("user", F.lit(maker.by).alias("by")))
    return Served(replace(model, users=rest.unionByName(made.select(*rest.columns))), answered)


def _maker(model: Model) -> _Maker | None:
    return None if model.settings is None else _MAKERS.get(model.settings.kind)


def _knows_users_by_features(model: Model) -> bool:
    """Whether it has something to say of users whom it was not fitted to."""
    head = field_head(model)
    return bool(head.layout.query) if head else model.settings is not None and model.settings.kind == "linear"
