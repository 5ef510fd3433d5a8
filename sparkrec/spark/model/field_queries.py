"""Models of features on Spark: who asks, and in which context, as rows that retrieval takes; scores of single events.

The table of users of such a model has their rows alone. What is known of a user or a context comes as entries (`rows`
and `weights`, as `features.encode` makes them), and a query is both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import storage
from sparkrec.errors import InputError
from sparkrec.fields import SparseFeatures
from sparkrec.kernels.arrays import F32, I64
from sparkrec.kernels.csr import located
from sparkrec.shards import ALWAYS, ITEM_FEATURES, ItemFeatures
from sparkrec.spark.arrow.packed_rows import schema_of
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.data.features import load, nothing
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import DenseRows, dense_batch, dense_schema, matrix, read_dense
from sparkrec.spark.model.scorers import FieldScorer
from sparkrec.spark.platform.few import narrowed
from sparkrec.spark.runner import RowFunction, Rows, map_rows, types_of

_FEATURES = schema_of(user=pa.int64(), rows=pa.binary(), weights=pa.binary())
_AT_ONCE = 1 << 13
"""Rows that a scorer makes or scores by one call."""


def field_scorer(model: Model) -> FieldScorer | None:
    """The scorer of a model of features; None of others."""
    return cast(FieldScorer, model.scorer) if model.serving.sees_fields and model.scorer is not None else None


def tells_strangers(model: Model) -> bool:
    """Whether it has something to say of users whom it was not fitted to: what is known of them."""
    scorer = field_scorer(model)
    return scorer is not None and bool(scorer.layout.query)


def latest_user_features(dataset: Dataset) -> DataFrame:
    """(user, rows, weights): what was known of each user when the last train interaction took place."""
    if dataset.layout is None:

        def plan(users: Rows) -> DataFrame:
            return users.select("user").map_rows(NothingKnown()).frame()

        return carry_out("features", plan, narrowed(dataset.users, "user"))
    until = dataset.train.agg(F.max("timestamp")).collect()[0][0]
    versions = dataset.features("user").where(F.col("since").isNull() | (F.col("since") <= F.lit(until)))
    # a row without a point in time is before all others
    latest = F.max_by(F.struct("rows", "weights"), F.coalesce(F.unix_micros("since"), F.lit(ALWAYS))).alias("latest")
    return versions.groupBy("user").agg(latest).select("user", "latest.*")


def first_queries(dataset: Dataset, rows: DataFrame) -> DataFrame:
    """(user, rows, weights): the queries of users, each as it was at the first of its `rows`, in the context of it."""
    if dataset.layout is None or not (dataset.layout.user or dataset.layout.context):
        return latest_user_features(dataset).join(rows.select("user").distinct(), "user", "left_semi")
    first = F.min_by(F.struct("rows", "weights"), F.struct("timestamp", "item", "rows", "weights")).alias("first")
    return rows.groupBy("user").agg(first).select("user", "first.*")


def in_context(users: DataFrame, contexts: DataFrame) -> DataFrame:
    """(user, rows, weights) of users, each in a context: what is known of the user, then of the context."""
    there = contexts.select("user", F.col("rows").alias("then"), F.col("weights").alias("then_weights"))
    both = [F.concat("rows", "then").alias("rows"), F.concat("weights", "then_weights").alias("weights")]
    return users.join(there, "user").select("user", *both)


def check_codes(model: Model, dataset: Dataset) -> None:
    """Raise InputError when the features of a dataset are not those that the model was fitted to."""
    scorer = field_scorer(model)
    assert scorer is not None
    found = (dataset.manifest.get("fields") or {}).get("digest", "")
    if scorer.codes != found:
        raise InputError(
            f"the model was fitted to features {scorer.codes or 'none'}, but those of dataset {dataset.reference} are "
            f"{found or 'none'}: the same row would mean something else. Use its own dataset, or train it again."
        )


def bind(model: Model, queries: DataFrame) -> Model:
    """The model for these queries: its users are theirs, and its rows what retrieval takes; vectors, where it can.

    queries  (user, rows, weights), one of a user; entries of users and contexts
    """
    scorer = field_scorer(model)
    assert scorer is not None
    size = 0 if scorer.is_factorized else max(_width(scorer, "query"), _width(scorer, "item"))

    def plan(queries: Rows, users: Rows, items: Rows) -> tuple[DataFrame, DataFrame]:
        asked = queries.joined(users.select("user", "value"), "user").select("user", "value", "rows", "weights")
        made = asked.map_rows(QueryRows(scorer, size)), items.map_rows(ItemRows(scorer, size))
        return made[0].map_rows(DenseRows("user")).frame(), made[1].map_rows(DenseRows("item")).frame()

    of_model = narrowed(model.users, "user", "value"), narrowed(model.items, "item", "value")
    users, items = carry_out("queries", plan, queries, *of_model)
    return replace(
        model,
        users=users,
        items=items,
        size=size or _width(scorer, "vector"),
        scorer=None if scorer.is_factorized else scorer,
    )


@dataclass(frozen=True)
class QueryRows:
    """(user, value) what retrieval takes of who asks (user, value, rows, weights): where a scorer is an inner product a
    vector, else a row of at least `size` numbers for it to score."""

    scorer: FieldScorer
    size: int

    @property
    def schema(self) -> pa.Schema:
        return dense_schema("user")

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in _at_once(batches):
            entries = SparseFeatures.of_arrow(batch.column("rows"), batch.column("weights"))
            rows = self.scorer.queries(batch.column("user").to_numpy(), matrix(batch.column("value")), entries)
            made = self.scorer.fold_queries(rows) if self.scorer.is_factorized else _padded(rows, self.size)
            yield dense_batch("user", batch.column("user"), made)


@dataclass(frozen=True)
class ItemRows:
    """(item, value) what retrieval takes of items (item, value), as `QueryRows`."""

    scorer: FieldScorer
    size: int

    @property
    def schema(self) -> pa.Schema:
        return dense_schema("item")

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in _at_once(batches):
            rows = matrix(batch.column("value"))
            made = self.scorer.fold_items(rows) if self.scorer.is_factorized else _padded(rows, self.size)
            yield dense_batch("item", batch.column("item"), made)


@dataclass(frozen=True)
class NothingKnown:
    """(user, rows, weights) of users of whom there are no features."""

    schema: pa.Schema = _FEATURES

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            none = pa.array([b""] * len(batch), pa.binary())
            yield pa.RecordBatch.from_arrays([batch.column("user"), none, none], schema=_FEATURES)


def _at_once(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    return (batch.slice(first, _AT_ONCE) for batch in batches for first in range(0, len(batch), _AT_ONCE))


def _width(scorer: FieldScorer, of: str) -> int:
    """Numbers in a row of a query or item, or in a vector."""
    nobody = np.zeros((0, scorer.row), np.float32)
    none = np.zeros(0, np.int64), nobody, SparseFeatures.none(0)
    if of == "item":
        return int(scorer.items(*none).shape[1])
    queries = scorer.queries(*none)
    return int((queries if of == "query" else scorer.fold_queries(queries)).shape[1])


def _padded(rows: F32, size: int) -> F32:
    return np.pad(rows, ((0, 0), (0, size - rows.shape[1])))


# --- single events --------------------------------------------------------------------------------------------------


def score_events(model: Model, dataset: Dataset, events: DataFrame) -> DataFrame:
    """The events, without what is known of them, and `score` float: that of their item for their user in their context,
    at their time. A user of whom the model has no row counts as any, and what else is known decides; without an item
    there is no score, null.

    events  user long, item long, timestamp, rows, weights, and any other columns

    Each worker reads the model's rows once, whole: 4 bytes times dim + 1 a user and item.
    """
    names = [name for name in events.columns if name not in ("timestamp", "rows", "weights")]
    schema = schema_of(**types_of(events, names), score=pa.float32())
    work = _scorer(field_scorer(model), *places(model, dataset), names)
    # Every column is handed over row by row, which takes longer than the scores: only those that tell something are.
    weighed = dataset.layout is not None and any(code.weighs for code in load(dataset.folder).of("user", "context"))
    in_time = dataset.layout is not None and bool(dataset.layout.item)
    sent = [*names, "rows", *["weights"] * weighed, *["_micros"] * in_time]
    return map_rows(timed(events).select(*sent), RowFunction(schema, work))


def timed(events: DataFrame) -> DataFrame:
    """With `_micros`: the time of each event as numbers, the last of all where it has none; and entries, if it has
    none."""
    given = events.withColumn("_micros", F.coalesce(F.unix_micros("timestamp"), F.lit(2**63 - 1)))
    if "rows" in events.columns:
        return given
    return given.select("*", *nothing())


def places(model: Model, dataset: Dataset) -> tuple[str, str, str | None]:
    """Arguments of `tables_of`, once the features are known to be the model's."""
    check_codes(model, dataset)
    assert model.folder is not None
    return model.token, model.folder, f"{dataset.folder}/item_features" if dataset.layout else None


def _scorer(scorer: Any, token: str, model: str, item_features: str | None, names: list[str]) -> Any:
    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        tables = tables_of(token, model, item_features)
        for batch in batches:
            score = np.empty(len(batch), np.float32)
            for first in range(0, len(batch), _AT_ONCE):
                score[first : first + _AT_ONCE] = tables.score(scorer, batch.slice(first, _AT_ONCE))
            columns = [*(batch.column(name) for name in names), pa.array(score, mask=np.isnan(score))]
            yield pa.RecordBatch.from_arrays(columns, [*names, "score"])

    return work


class Tables:
    """Rows of a model, and what is known of items, in a worker."""

    def __init__(self, model: str, item_features: str | None) -> None:
        self.users, self.user_rows = read_dense(f"{model}/users", "user")
        self.items, self.item_rows = read_dense(f"{model}/items", "item")
        self.features = _read_features(item_features, self.items)

    def score(self, scorer: Any, batch: pa.RecordBatch) -> F32:
        users, items = self.sides(scorer, batch)
        scores: F32 = scorer.score_events(users, items)
        scores[self.items[items[0]] != batch.column("item").to_numpy()] = np.nan
        return scores

    def rows(self, scorer: Any, batch: pa.RecordBatch | pa.Table) -> tuple[F32, F32]:
        """Queries and items of events, as `FieldScorer.score_rows` takes them."""
        users, items = self.sides(scorer, batch)
        return scorer.queries(*users), scorer.items(*items)

    def sides(
        self, scorer: Any, batch: pa.RecordBatch
    ) -> tuple[tuple[I64, F32, SparseFeatures], tuple[I64, F32, SparseFeatures]]:
        """Ids, rows and entries of the users and the items of events."""
        users, items = (batch.column(name).to_numpy() for name in ("user", "item"))
        names = batch.schema.names
        entries = SparseFeatures.of_arrow(batch.column("rows"), batch.column("weights") if "weights" in names else None)
        rows, at = _found(self.items, self.item_rows[:, : scorer.row], items)
        known = self.features.at(at, batch.column("_micros").to_numpy() if "_micros" in names else np.zeros_like(at))
        return (users, _found(self.users, self.user_rows, users)[0], entries), (at, rows, known)


@lru_cache(maxsize=2)
def tables_of(_token: str, model: str, item_features: str | None) -> Tables:
    """The tables of a model, read once in a worker.

    _token  of the model, by which they are kept
    """
    return Tables(model, item_features)


def _found(ids: I64, rows: F32, wanted: I64) -> tuple[F32, I64]:
    """Rows of the wanted ones, zeros where there are none; and where they are, anywhere where there are none."""
    at, is_known = located(wanted, ids)
    missing = np.flatnonzero(~is_known)
    at[missing] = 0  # any
    found = rows[at]
    found[missing] = 0.0
    return found, at


def _read_features(folder: str | None, items: I64) -> ItemFeatures:
    if folder is None:
        return ItemFeatures.none(len(items))
    table = pa.concat_tables(storage.read_parquet(folder, ["item", "since", "rows", "weights"]))
    return ItemFeatures.of(item_features_by_index(table, items), len(items))


def item_features_by_index(features: pa.Table, items: I64) -> pa.Table:
    """The `item_features` of a dataset as ITEM_FEATURES: items by their place among `items`, ascending."""
    since = features["since"].cast(pa.timestamp("us")).cast(pa.int64()).fill_null(ALWAYS)
    at = np.searchsorted(items, features["item"].to_numpy())
    table = pa.table([pa.array(at.astype(np.int32)), since, features["rows"], features["weights"]], ITEM_FEATURES.names)
    return table.cast(ITEM_FEATURES).sort_by([("item", "ascending"), ("since", "ascending")])
