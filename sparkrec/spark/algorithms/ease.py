"""EASE: a linear autoencoder with zero diagonal, in closed form (Steck 2019).

Spark lays out the users' histories; the driver takes them block by block, adds up X'X, inverts it where it
lies and writes its columns to Parquet. The driver holds nothing else as large as this items x items matrix.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field
from pyspark.sql import DataFrame
from scipy.sparse import csr_array

from sparkrec import storage
from sparkrec.config.model import Declaration, ModelSettings, UserRows
from sparkrec.errors import TrainError
from sparkrec.kernels.arrays import F32, I64
from sparkrec.kernels.retrieval.ease import TILE, NotPositiveDefinite, ease_weights
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.data.fit_inputs import FitInputs
from sparkrec.spark.model.explain import contributions_of_items
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import dense_vectors, list_column, lists, sparse, strengths
from sparkrec.spark.runner import pack

log = logging.getLogger(__name__)

BLOCK_BYTES = 64 << 20
"""Of histories that the driver takes at a time."""

TILE_BYTES = 32 << 20
"""Of the matrix that are added up, or written as a Parquet row group, at a time."""


class EaseSettings(ModelSettings):
    """Linear autoencoder with zero diagonal in closed form (Steck 2019). Holds an items x items matrix."""

    kind: Literal["ease"] = "ease"
    regularization: float = Field(200.0, gt=0)
    """L2 on the item-item weights."""
    max_memory_gb: float = Field(12.0, gt=0)
    """Refuse a catalogue whose matrices would take more on the driver."""


def fit_ease(settings: EaseSettings, inputs: FitInputs) -> Model:
    """score(u, i) = sum of strength(u, j) B_ji over the items j that u has.

    B minimises |X - XB|^2 + regularization |B|^2 with B_ii = 0, where X holds the strengths. A position of
    the model is a place in the ascending list of the dataset's items. Takes 4 m^2 bytes on the driver for m
    items, as many under `inputs.scratch`, and m^3 multiplications. Raises TrainError when that is more than
    `max_memory_gb`, or the regularization too small for float32.
    """
    dataset = inputs.dataset
    ids = _items(dataset, settings)
    spark = inputs.observed.sparkSession
    users = _placed(inputs.observed, ids).persist()
    try:
        # In Fortran order, so that a column, which is an item's row of the model, is contiguous.
        gram: F32 = np.zeros((len(ids), len(ids)), np.float32, order="F")
        for history in _histories(users, len(ids)):
            _add_gram(gram, history)
    finally:
        users.unpersist()
    log.info("ease: X'X of %s items added up", len(ids))
    try:
        weights = ease_weights(gram, settings.regularization)
    except NotPositiveDefinite:
        raise TrainError(
            f"ease: X'X of {len(ids)} items is not invertible in float32 with regularization "
            f"{settings.regularization:g}. Raise model.regularization: 100 to 1000 is usual."
        ) from None
    log.info("ease: inverted")
    _write_columns(weights, ids, f"{inputs.scratch}/items")
    items = spark.read.parquet(f"{inputs.scratch}/items")
    return Model(
        users=sparse(dataset.users, "user", users),
        items=dense_vectors(items, "item"),
        size=len(ids),
        user_storage="sparse",
        item_storage="dense",
    )


def _items(dataset: Dataset, settings: EaseSettings) -> I64:
    """Ascending ids of all items, once it is sure that their matrix is small enough."""
    m = dataset.items.count()
    needed = (4 * m**2 + 16 * TILE * m + 4 * (BLOCK_BYTES + TILE_BYTES)) / 1e9
    if needed > settings.max_memory_gb:
        raise TrainError(
            f"ease: {m:,} items need {needed:.1f} GB on the driver, max_memory_gb allows "
            f"{settings.max_memory_gb:g}. Raise it if the driver has that much beside Spark; else prepare "
            "with a higher min_item_interactions, or take model.kind itemknn."
        )
    return _ascending(dataset.items)


def user_rows(model: Model, settings: EaseSettings, events: DataFrame, observed: DataFrame) -> DataFrame:
    """Rows of the users in `events` (user, item, value, confidence): their histories."""
    return _placed(events, _ascending(model.items))


def _ascending(items: DataFrame) -> I64:
    return np.sort(items.select("item").toArrow()["item"].to_numpy())


def _placed(events: DataFrame, ids: I64) -> DataFrame:
    """(user, index, value): the strengths of each user, by the place of an item among the ascending `ids`."""
    places = pa.table({"item": ids, "place": np.arange(len(ids), dtype=np.int32)})
    entries = strengths(events).join(events.sparkSession.createDataFrame(places), "item")
    return lists(entries, "user", "place", "strength")


def _histories(users: DataFrame, n_items: int) -> Iterator[csr_array]:
    """X, some users at a time."""
    arrays = {"index": np.int32, "value": np.float32}
    blocks = pack(users, "user", arrays, max_rows=2**31 - 1, max_bytes=BLOCK_BYTES)
    for row in blocks.toLocalIterator():
        start = np.frombuffer(row["user_index_start"], np.int64)
        index = np.frombuffer(row["user_index"], np.int32)
        value = np.frombuffer(row["user_value"], np.float32)
        yield csr_array((value, index, start), shape=(len(start) - 1, n_items))


def _add_gram(gram: F32, history: csr_array) -> None:
    """gram += history' history, some columns at a time: the rows of its transpose, since it is symmetric."""
    by_item = history.T.tocsr()
    step = max(1, TILE_BYTES // (4 * len(gram)))
    for first in range(0, len(gram), step):
        tile = slice(first, first + step)
        gram.T[tile] += (by_item[tile] @ history).toarray()


def _write_columns(weights: F32, ids: I64, folder: str) -> None:
    """Column j of the weights as the row (item, value array<float>) of item j."""
    m = len(ids)
    filesystem, name = storage.resolve(folder)
    filesystem.create_dir(name, recursive=True)
    schema = pa.schema([("item", pa.int64()), ("value", pa.list_(pa.float32()))])
    step = max(1, TILE_BYTES // (4 * m))
    with pq.ParquetWriter(
        f"{name}/part-0.parquet", schema, filesystem=filesystem, compression="none", use_dictionary=False
    ) as writer:
        for first in range(0, m, step):
            rows = weights[:, first : first + step].T
            columns = {"item": ids[first : first + step], "value": list_column(rows)}
            writer.write_table(pa.table(columns, schema=schema))


def explain(model: Model, dataset: Dataset, user: int, item: int) -> DataFrame:
    """(item, contribution) of the items that a user has; a position of a row is a place among the model's items."""
    return contributions_of_items(model, user, item, _ascending(model.items).tolist())


MODEL = Declaration(
    settings=EaseSettings,
    feedback=("implicit",),
    fit=fit_ease,
    user_rows=UserRows(user_rows, "history"),
    explain=explain,
)
