"""EASE: a linear autoencoder with zero diagonal, in closed form (Steck 2019).

Spark lays out the users' histories; the driver takes them block by block, adds up X'X, inverts it where it
lies and writes its columns to Parquet. The driver holds nothing else as large as this items x items matrix.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field
from pyspark.sql import DataFrame

from sparkrec.config.model import Declaration, ModelSettings, UserRows
from sparkrec.errors import TrainError
from sparkrec.exported.histories import Entries
from sparkrec.kernels.arrays import F32, I64
from sparkrec.kernels.csr import Csr, located
from sparkrec.kernels.retrieval.ease import TILE, NotPositiveDefinite, add_gram, ease_weights
from sparkrec.spark.arrow.entries import ARRAYS
from sparkrec.spark.arrow.packed_rows import schema_of
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.data.fit_inputs import FitInputs
from sparkrec.spark.data.ids import ascending
from sparkrec.spark.data.matrix_rows import EVENT, matrix_rows, partitions_of
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.model.explain import contributions_of_items
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import DenseRows, list_column, sparse_rows
from sparkrec.spark.platform.few import narrowed
from sparkrec.spark.runner import Rows

log = logging.getLogger(__name__)

BLOCK_BYTES = 64 << 20
"""Of histories that the driver takes at a time."""

TILE_BYTES = 32 << 20
"""Of the matrix that are written as a Parquet row group at a time."""


_ITEM = schema_of(item=pa.int64(), value=pa.list_(pa.float32()))


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

    def add_up(observed: Rows, users: Rows, items: Rows) -> tuple[DataFrame, I64, F32]:
        ids = _items(items, settings)
        histories = _placed(observed, ids).kept()
        # In Fortran order, so that a column, which is an item's row of the model, is contiguous.
        gram: F32 = np.zeros((len(ids), len(ids)), np.float32, order="F")
        for history in _histories(histories):
            add_gram(gram.T, history)
        return sparse_rows(users, "user", histories.select(*ARRAYS, user="row")).frame(), ids, gram

    users, ids, gram = carry_out(
        "ease",
        add_up,
        narrowed(inputs.observed, *EVENT),
        narrowed(dataset.users, "user"),
        narrowed(dataset.items, "item"),
    )
    log.info("ease: X'X of %s items added up", len(ids))
    try:
        weights = ease_weights(gram, settings.regularization)
    except NotPositiveDefinite:
        raise TrainError(
            f"ease: X'X of {len(ids)} items is not invertible in float32 with regularization "
            f"{settings.regularization:g}. Raise model.regularization: 100 to 1000 is usual."
        ) from None
    log.info("ease: inverted")

    def columns(items: Rows) -> DataFrame:
        return items.made(f"{inputs.scratch}/items", _ITEM, _columns(weights, ids)).map_rows(DenseRows("item")).frame()

    items = carry_out("ease", columns, narrowed(dataset.items, "item"))
    return Model(users=users, items=items, size=len(ids), user_storage="sparse", item_storage="dense")


def _items(items: Rows, settings: EaseSettings) -> I64:
    """Ascending ids of all items, once it is sure that their matrix is small enough."""
    m = items.count()
    needed = (4 * m**2 + 16 * TILE * m + 4 * (BLOCK_BYTES + TILE_BYTES)) / 1e9
    if needed > settings.max_memory_gb:
        raise TrainError(
            f"ease: {m:,} items need {needed:.1f} GB on the driver, max_memory_gb allows "
            f"{settings.max_memory_gb:g}. Raise it if the driver has that much beside Spark; else prepare "
            "with a higher min_item_interactions, or take model.kind itemknn."
        )
    return _ascending(items)


def user_rows(model: Model, settings: EaseSettings, events: DataFrame, observed: DataFrame) -> DataFrame:
    """Rows of the users in `events` (user, item, value, confidence): their histories."""

    def plan(events: Rows, items: Rows) -> DataFrame:
        return _placed(events, _ascending(items)).select(*ARRAYS, user="row").frame()

    return carry_out("ease", plan, narrowed(events, *EVENT), narrowed(model.items, "item"))


def _ascending(items: Rows) -> I64:
    return np.sort(items.select("item").table()["item"].to_numpy())


@dataclass(frozen=True)
class PlaceItems:
    """Entries (row, column, value, confidence) of events (user, item, value, confidence): a column is the place of an
    item among the ascending `ids`. Other items are left out."""

    ids: I64

    @property
    def schema(self) -> pa.Schema:
        return schema_of(row=pa.int64(), column=pa.int64(), value=pa.float32(), confidence=pa.float32())

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            at, known = located(batch.column("item").to_numpy().astype(np.int64, copy=False), self.ids)
            entries = [batch.column("user"), pa.array(at), batch.column("value"), batch.column("confidence")]
            yield pa.RecordBatch.from_arrays(entries, self.schema.names).filter(pa.array(known))


def _placed(events: Rows, ids: I64) -> Rows:
    """(row, index, value): the strengths of each user, by the place of an item among the ascending `ids`."""
    columns = events.select(*EVENT)
    return matrix_rows(columns.map_rows(PlaceItems(ids)), partitions_of(events))


def _histories(users: Rows) -> Iterator[Csr]:
    """X, some users at a time."""
    for row in users.pack("row", ARRAYS, (2**31 - 1, BLOCK_BYTES)).each():
        start = np.frombuffer(row["row_index_start"], np.int64)
        yield Csr(start, np.frombuffer(row["row_index"], np.int32), np.frombuffer(row["row_value"], np.float32))


def _columns(weights: F32, ids: I64) -> Iterator[pa.Table]:
    """Column j of the weights as the row (item, value) of item j, some at a time."""
    step = max(1, TILE_BYTES // (4 * len(ids)))
    for first in range(0, len(ids), step):
        rows = weights[:, first : first + step].T
        yield pa.table({"item": ids[first : first + step], "value": list_column(rows)}, schema=_ITEM)


def exported(model: Model, settings: EaseSettings, observed: DataFrame) -> Entries:
    """As `user_rows`, without Spark."""
    m = model.size
    return Entries(np.arange(m, dtype=np.int32), np.ones(m))


def explain(model: Model, dataset: Dataset, user: int, item: int) -> DataFrame:
    """(item, contribution) of the items that a user has; a position of a row is a place among the model's items."""
    items = ascending(model.items, "item")
    return contributions_of_items(model, user, item, items.tolist())


MODEL = Declaration(
    settings=EaseSettings,
    feedback=("implicit",),
    fit=fit_ease,
    user_rows=UserRows(user_rows, "history"),
    exported=exported,
    explain=explain,
)
