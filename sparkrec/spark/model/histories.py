"""Histories of those who ask: a model of sequences becomes one of plain vectors, bound to what its users did."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import cast

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame

from sparkrec.kernels.arrays import F32
from sparkrec.spark.arrow.blocks import read_lists
from sparkrec.spark.data.sequences import EncodeItems
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import DenseRows, dense_batch, dense_schema, matrix, read_dense
from sparkrec.spark.model.scorers import HistoryScorer
from sparkrec.spark.platform.few import narrowed
from sparkrec.spark.runner import Rows


def bind(model: Model, asking: DataFrame) -> Model:
    """The model for users who ask after these histories: a vector of each of them, and of each item.

    asking  (user, items array<long>); items that the model does not know are passed over, and users without others have
            no row. A user whom the model does not know is known by the history alone
    """
    scorer = cast(HistoryScorer, model.scorer)
    assert model.folder is not None
    of_users = UserStates(scorer, model.size, model.token, f"{model.folder}/items")

    def plan(asking: Rows, users: Rows, items: Rows) -> tuple[DataFrame, DataFrame]:
        ids = np.sort(items.select("item").table()["item"].to_numpy())
        shown = asking.select("user", "items")
        own = shown.map_rows(EncodeItems.of(shown, ids)).joined(users.select("user", "value"), "user", every=True)
        states = own.map_rows(of_users).map_rows(DenseRows("user"))
        outputs = items.select("item", "value").map_rows(OutputEmbeddings(scorer)).map_rows(DenseRows("item"))
        return states.frame(), outputs.frame()

    of_model = narrowed(model.users, "user", "value"), narrowed(model.items, "item", "value")
    users, items = carry_out("histories", plan, asking, *of_model)
    return replace(model, users=users, items=items, size=scorer.state_size, scorer=None)


@dataclass(frozen=True)
class UserStates:
    """(user, value) what a scorer makes of a user's row (size,), null for a stranger, and of the places of their items.

    token, folder  of the model, and of its items
    """

    scorer: HistoryScorer
    size: int
    token: str
    folder: str

    @property
    def schema(self) -> pa.Schema:
        return dense_schema("user")

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = _item_rows(self.token, self.folder)
        for batch in batches:
            value = batch.column("value")
            if value.null_count:
                value = value.fill_null(pa.scalar([0.0] * self.size, value.type))
            histories = read_lists(batch.column("items"), np.int32)
            found = self.scorer.states(matrix(value), histories, rows)
            yield dense_batch("user", batch.column("user"), found)


@dataclass(frozen=True)
class OutputEmbeddings:
    """(item, value) what a scorer makes of the rows of items."""

    scorer: HistoryScorer

    @property
    def schema(self) -> pa.Schema:
        return dense_schema("item")

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            found = self.scorer.output_embeddings(matrix(batch.column("value")))
            yield dense_batch("item", batch.column("item"), found)


@lru_cache(maxsize=1)
def _item_rows(_token: str, folder: str) -> F32:
    """Of all items, ascending; read once in a worker for the model of a token."""
    return read_dense(folder, "item")[1]
