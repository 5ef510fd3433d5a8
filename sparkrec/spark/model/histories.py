"""Histories of those who ask: a model of sequences becomes one of plain vectors, bound to what its users did."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import cast

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.kernels.arrays import F32
from sparkrec.spark.arrow.blocks import read_lists
from sparkrec.spark.data.sequences import encode_items
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import dense_batch, dense_schema, dense_vectors, matrix, read_dense
from sparkrec.spark.model.scorers import HistoryScorer
from sparkrec.spark.runner import RowFunction, map_rows


def bind(model: Model, asking: DataFrame) -> Model:
    """The model for users who ask after these histories: a vector of each of them, and of each item.

    asking  (user, items array<long>); items that the model does not know are passed over, and users without others have
            no row. A user whom the model does not know is known by the history alone
    """
    items = np.sort(model.items.select("item").toArrow()["item"].to_numpy())
    scorer = cast(HistoryScorer, model.scorer)
    assert model.folder is not None
    token, folder = model.token, f"{model.folder}/items"
    nobody = F.array_repeat(F.lit(0.0).cast("float"), model.size)
    own = encode_items(asking, items).join(model.users.select("user", "value"), "user", "left")
    shown = own.select("user", F.coalesce("value", nobody).alias("value"), "items")

    def user_vectors(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = _item_rows(token, folder)
        for batch in batches:
            histories = read_lists(batch.column("items"), np.int32)
            found = scorer.states(matrix(batch.column("value")), histories, rows)
            yield dense_batch("user", batch.column("user"), found)

    def item_vectors(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield dense_batch("item", batch.column("item"), scorer.output_embeddings(matrix(batch.column("value"))))

    of_items = model.items.select("item", "value")
    return replace(
        model,
        users=dense_vectors(map_rows(shown, RowFunction(dense_schema("user"), user_vectors)), "user"),
        items=dense_vectors(map_rows(of_items, RowFunction(dense_schema("item"), item_vectors)), "item"),
        size=scorer.state_size,
        scorer=None,
    )


@lru_cache(maxsize=1)
def _item_rows(_token: str, folder: str) -> F32:
    """Of all items, ascending; read once in a worker for the model of a token."""
    return read_dense(folder, "item")[1]
