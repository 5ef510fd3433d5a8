"""Users as they ask: by the row that was fitted to them, by one made of their history, or by one that is folded in.

A model needs no row of a user where the row says no more than the history does; there it is made of what the user has
done by now. Where the best row for a history has a closed form, it is solved for, with the items as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
from pyspark.sql import DataFrame

from sparkrec.config import ModelSettings, kinds_that
from sparkrec.spark.arrow.packed_rows import schema_of
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.data.sequences import histories
from sparkrec.spark.in_place import carry_out, computed
from sparkrec.spark.model import field_queries
from sparkrec.spark.model.encoded import ENCODED
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.histories import bind as bind_histories
from sparkrec.spark.platform.few import narrowed
from sparkrec.spark.runner import Rows

_ANSWERED = schema_of(user=pa.int64(), by=pa.string())
ANSWERS = ("model", "history", "folded in")
"""What answers a user: the model, which was fitted to it; the history of one to whom it was not; a row that was folded
in."""


@dataclass(frozen=True)
class Bound:
    """A model with a row for each user that it can answer: plain vectors, or rows that its scorer takes."""

    model: Model
    users: DataFrame
    """(user, by): which of those who ask these are, and which of ANSWERS is theirs."""


@dataclass(frozen=True)
class AnsweredBy:
    """(user, by) of users, all of whom one of ANSWERS is for."""

    by: str
    schema: pa.Schema = _ANSWERED

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            columns = [batch.column("user"), pa.array([self.by] * batch.num_rows, pa.string())]
            yield pa.RecordBatch.from_arrays(columns, schema=_ANSWERED)


def follows_history(settings: ModelSettings) -> bool:
    """Whether what a user did since the fit can change what the model answers."""
    return settings.sequence_needs is not None or settings.declaration.makes_user_rows


def following() -> str:
    """The kinds that `follows_history` is true of, for messages."""
    return f"{', '.join(kinds_that(lambda kind: kind.makes_user_rows))} or a model of sequences"


def bind(
    model: Model,
    dataset: Dataset,
    users: DataFrame,
    events: DataFrame,
    *,
    include_validation: bool = False,
    anew: DataFrame | None = None,
    queries: Callable[[DataFrame], DataFrame] | None = None,
) -> Bound:
    """The model for those who ask, whatever it needs to know of them.

    users               (user) who asks; they need not be in the dataset
    events              (user, item, value, confidence, timestamp) what they did, items of the dataset
    include_validation  whether the model was fitted to train and validation together
    anew                (user) whose rows are made from `events`, even if the model was fitted to them; None: nobody's
    queries             of a model that sees features: from (user) who asks to (user, rows, weights), what is known of
                        each and of the context; None: what was known when the last train row took place
    Raises InputError where the features of the dataset are not those that the model was fitted to.
    """
    if not model.sees_histories and not model.serving.sees_fields:
        return _by_rows(model, dataset, users, events, include_validation, anew)
    if model.sees_histories:
        return _by_histories(model, dataset, users, events, include_validation)
    field_queries.check_codes(model, dataset)
    tells = field_queries.tells_strangers(model)
    fitted = dataset.users if tells else dataset.fitted("user", include_validation)

    def answered(users: Rows, fitted: Rows) -> DataFrame:
        return users.select("user").distinct().only(fitted, "user").map_rows(AnsweredBy("model")).frame()

    own = carry_out("bind", answered, narrowed(users, "user"), narrowed(fitted, "user"))
    # As with rows: a user whom the model was not fitted to has one, though nobody should be answered by it.
    asked = field_queries.latest_user_features(dataset) if queries is None else queries(users.select("user").distinct())
    return Bound(field_queries.bind(model, asked), own)


def _by_histories(
    model: Model, dataset: Dataset, users: DataFrame, events: DataFrame, include_validation: bool
) -> Bound:
    cut = dataset.sequence_settings
    assert cut is not None
    shown = histories(events, cut, users)
    fitted = dataset.fitted("user", include_validation)

    def plan(shown: Rows, fitted: Rows) -> DataFrame:
        asking, fitted = shown.select("user"), fitted.select("user")
        own = asking.only(fitted, "user").map_rows(AnsweredBy("model"))
        return own.union(asking.without(fitted, "user").map_rows(AnsweredBy("history"))).frame()

    answered = carry_out("bind", plan, shown, narrowed(fitted, "user"))
    bound = (model.serving.bind or bind_histories)(model, shown)
    return Bound(bound, answered)


def _by_rows(
    model: Model,
    dataset: Dataset,
    users: DataFrame,
    events: DataFrame,
    include_validation: bool,
    anew: DataFrame | None,
) -> Bound:
    fitted = dataset.users if model.serving.ranks_strangers else dataset.fitted("user", include_validation)
    rows = model.serving.user_rows if model.encoder is None else ENCODED

    def plan(users: Rows, fitted: Rows, anew: Rows | None) -> tuple[DataFrame, DataFrame | None]:
        users, fitted = users.select("user").distinct(), fitted.select("user")
        own = users.only(fitted, "user")
        if rows is None:
            return own.map_rows(AnsweredBy("model")).frame(), None
        wanted = users.without(fitted, "user")
        if anew is not None:
            wanted = wanted.union(users.only(anew, "user")).distinct()
        wanted = wanted.computed()
        return own.map_rows(AnsweredBy("model")).frame(), wanted.frame() if wanted.count() else None

    own, wanted = carry_out("bind", plan, narrowed(users, "user"), narrowed(fitted, "user"), anew)
    if rows is None or wanted is None:
        return Bound(model, own)
    items = dataset.fitted("item", include_validation)

    def tell(events: Rows, wanted: Rows, items: Rows) -> DataFrame | None:
        told = events.only(wanted, "user").only(items, "item").computed()
        return told.frame() if told.count() else None

    told = carry_out("bind", tell, events, wanted, narrowed(items, "item"))
    if told is None:
        return Bound(model, own)
    made = computed("bind", rows.make(model, model.settings, told, dataset.observed(include_validation)))
    by = AnsweredBy(rows.by)

    def join(users: Rows, own: Rows, made: Rows) -> tuple[DataFrame, DataFrame]:
        rows = users.without(made, "user").union(made.select(*users.columns))
        return rows.frame(), own.without(made, "user").union(made.select("user").map_rows(by)).frame()

    users, answered = carry_out("bind", join, model.users, own, made)
    return Bound(replace(model, users=users), answered)
