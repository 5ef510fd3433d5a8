"""Tasks on a model's lists and on what they are measured by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkrec.kernels.hashing import spark_hash
from sparkrec.kernels.ragged import Ragged
from sparkrec.spark.arrow.packed_rows import schema_of
from sparkrec.spark.arrow.unlist import Unlist

_COUNTS = {"targets": ("item", pa.int64()), "greater": ("greater", pa.int64()), "equal": ("equal", pa.int64())}
TARGETS = Unlist(_COUNTS, {"user": pa.int64(), "candidates": pa.int64()})
"""A row of each target of lists with counts."""


@dataclass(frozen=True)
class AucShares:
    """(user, item, beaten) of the targets of lists with counts, where there are candidates to tell them from."""

    schema: ClassVar[pa.Schema] = schema_of(user=pa.int64(), item=pa.int64(), beaten=pa.float64())

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in TARGETS(batches):
            candidates, greater, equal = (batch.column(name).to_numpy() for name in ("candidates", "greater", "equal"))
            with np.errstate(invalid="ignore"):  # nothing to tell them from
                beaten = 1 - (greater + equal / 2) / candidates
            columns = [batch.column("user"), batch.column("item"), pa.array(beaten)]
            yield pa.RecordBatch.from_arrays(columns, schema=self.schema).filter(pa.array(candidates > 0))


@dataclass(frozen=True)
class CountTargets:
    """How many targets lists have, and how many are known and rankable, added up."""

    schema: ClassVar[pa.Schema] = schema_of(listed=pa.int64(), known=pa.int64(), rankable=pa.int64())

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            listed = pc.sum(pc.list_value_length(batch.column("targets")).cast(pa.int64()))
            sums = [listed, pc.sum(batch.column("known")), pc.sum(batch.column("rankable"))]
            yield pa.RecordBatch.from_arrays(
                [pa.array([each.as_py()], pa.int64()) for each in sums], schema=self.schema
            )


@dataclass(frozen=True)
class DrawLists:
    """(user, items): of each batch the lists of the n users who are drawn first, shortened."""

    n: int
    length: int
    schema: ClassVar[pa.Schema] = schema_of(user=pa.int64(), items=pa.list_(pa.int64()))

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            order = spark_hash(batch.column("user").to_numpy()).argsort(kind="stable")[: self.n]
            drawn = batch.take(pa.array(order))
            items = pc.list_slice(drawn.column("items"), 0, self.length).cast(pa.list_(pa.int64()))
            yield pa.RecordBatch.from_arrays([drawn.column("user"), items], schema=self.schema)


@dataclass(frozen=True)
class OrBelow:
    """(user, item, score), lists in the place of `items` and `scores`: an item that the model does not know is below
    all."""

    schema: ClassVar[pa.Schema] = schema_of(user=pa.int64(), item=pa.list_(pa.int64()), score=pa.list_(pa.float32()))

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            scores = batch.column("scores")
            known = scores.flatten().fill_null(float("-inf"))
            score = Ragged.of_lengths(pc.list_value_length(scores).to_numpy(), known.to_numpy()).arrow()
            yield pa.RecordBatch.from_arrays([batch.column("user"), batch.column("items"), score], schema=self.schema)


@dataclass(frozen=True)
class Popularity:
    """(item, popularity): the share of users who have an item, at least one of them."""

    users: int
    schema: ClassVar[pa.Schema] = schema_of(item=pa.int64(), popularity=pa.float64())

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            share = np.clip(batch.column("train_count").to_numpy(), 1, self.users) / self.users
            yield pa.RecordBatch.from_arrays([batch.column("item"), pa.array(share)], schema=self.schema)
