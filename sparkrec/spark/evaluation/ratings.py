"""Errors of predicted ratings, of all rows of a split and of segments of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from sparkrec.kernels.arrays import I32
from sparkrec.spark.arrow.packed_rows import one_row, schema_of
from sparkrec.spark.evaluation.segments import SIDES, members
from sparkrec.spark.runner import Rows


def rating_errors(
    rows: Rows, train: Rows, clip: tuple[float, float] | None, segments: int
) -> Iterator[tuple[str, str, float, int]]:
    """Segment, metric, value and users of it: rmse, mae and unpredicted of all and of the segments, in their order.

    rows      (user, value, score, user_group, item_group); a row without a score has the mean of train
    train     (value)
    clip      the least and the greatest prediction
    segments  number of groups of users, and of items
    """
    mean = train.described("value")[0].mean if rows.where_null("score").count() else None
    sums = rows.map_rows(SumErrors(0.0 if mean is None else mean, clip, segments)).table()
    users = rows.map_rows(ListMembers(segments)).distinct().counted("segment").table()
    users_of = dict(zip(users["segment"].to_pylist(), users["n"].to_pylist(), strict=True))
    for segment in sorted(users_of):
        own = [row for row in sums.to_pylist() if row["segment"] == segment]
        n = sum(row["rows"] for row in own)
        yield segment, "rmse", math.sqrt(math.fsum(row["squared"] for row in own) / n), users_of[segment]
        yield segment, "mae", math.fsum(row["absolute"] for row in own) / n, users_of[segment]
        yield segment, "unpredicted", float(sum(row["unpredicted"] for row in own)), users_of[segment]


def _groups(batch: pa.RecordBatch) -> dict[str, I32]:
    return {side: batch.column(f"{side}_group").to_numpy() for side in SIDES}


@dataclass(frozen=True)
class SumErrors:
    """(segment, rows, squared, absolute, unpredicted) of rows (value, score, user_group, item_group), added up."""

    mean: float
    """The prediction where there is none."""
    clip: tuple[float, float] | None
    segments: int
    schema: ClassVar[pa.Schema] = schema_of(
        segment=pa.string(), rows=pa.int64(), squared=pa.float64(), absolute=pa.float64(), unpredicted=pa.int64()
    )

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if not batch.num_rows:
                continue
            score = batch.column("score")
            lacks = score.is_null().to_numpy(zero_copy_only=False)
            predicted = np.where(lacks, self.mean, score.fill_null(0.0).to_numpy().astype(np.float64))
            if self.clip is not None:
                predicted = np.clip(predicted, *self.clip)
            error = predicted - batch.column("value").to_numpy().astype(np.float64)
            for segment, own in members(_groups(batch), self.segments):
                told = {
                    "segment": segment,
                    "rows": len(error[own]),
                    "squared": (error[own] ** 2).sum(),
                    "absolute": np.abs(error[own]).sum(),
                    "unpredicted": lacks[own].sum(),
                }
                yield one_row(self.schema, **{name: pa.array([value]) for name, value in told.items()})


@dataclass(frozen=True)
class ListMembers:
    """(segment, user) of rows (user, user_group, item_group): each user once a batch."""

    segments: int
    schema: ClassVar[pa.Schema] = schema_of(segment=pa.string(), user=pa.int64())

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for segment, own in members(_groups(batch), self.segments):
                users = np.unique(batch.column("user").to_numpy()[own])
                yield pa.RecordBatch.from_arrays(
                    [pa.array([segment] * len(users)), pa.array(users)], schema=self.schema
                )
