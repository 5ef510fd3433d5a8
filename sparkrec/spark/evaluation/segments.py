"""Groups of users by how much they did, and of items by how often they were had."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame

from sparkrec.kernels.arrays import I32, I64
from sparkrec.spark.arrow.packed_rows import schema_of
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.platform.few import narrowed
from sparkrec.spark.runner import Rows

SIDES = ("user", "item")


def grouped(truth: DataFrame, dataset: Dataset, segments: int) -> DataFrame:
    """The rows and the groups of their users and items, `user_group` and `item_group` int from 1; 0 when there is but
    one, or the dataset does not have the item."""

    def plan(truth: Rows, users: Rows, items: Rows) -> DataFrame:
        if segments == 1:
            none = pa.scalar(0, pa.int32())
            return truth.filled(user_group=none, item_group=none).frame()
        users = truth.select("user").distinct().joined(users.select("user", "train_count"), "user", every=True)
        users = users.coalesced(train_count=pa.scalar(0, users.kind("train_count"))).computed()
        items = items.select("item", "train_count")
        bounds = {side: _bounds(rows, segments) for side, rows in zip(SIDES, (users, items), strict=True)}
        truth = truth.joined(users.select("user", user_group="train_count"), "user")
        truth = truth.joined(items.select("item", item_group="train_count"), "item", every=True)
        columns = truth.fields(*(name for name in truth.columns if name not in GROUPS))
        return truth.map_rows(GroupCounts(columns, bounds["user"], bounds["item"])).frame()

    counts = [
        narrowed(frame, side, "train_count") for side, frame in zip(SIDES, (dataset.users, dataset.items), strict=True)
    ]
    return carry_out("metrics", plan, truth, *counts)


GROUPS = tuple(f"{side}_group" for side in SIDES)


def _bounds(rows: Rows, segments: int) -> I64:
    counted = rows.counted("train_count").table()
    return np.array(
        bounds_of([*zip(*(counted[name].to_pylist() for name in ("train_count", "n")), strict=True)], segments)
    )


@dataclass(frozen=True)
class GroupCounts:
    """Rows whose train counts are in `user_group` and `item_group`, with the groups there, by the bounds of each; an
    item without a count is in none."""

    columns: pa.Schema
    """Those that stay."""
    user: I64
    item: I64

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([*self.columns, *((name, pa.int32()) for name in GROUPS)])

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            own = [batch.column(name) for name in self.columns.names]
            for side, bounds in zip(SIDES, (self.user, self.item), strict=True):
                count = batch.column(f"{side}_group")
                place = np.searchsorted(bounds, count.fill_null(0).to_numpy()) + 1
                own.append(pa.array(np.where(count.is_valid(), place, 0).astype(np.int32)))
            yield pa.RecordBatch.from_arrays(own, schema=self.schema)


def members(groups: Mapping[str, I32], segments: int) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """The segments that some rows are in, `all` first, and which rows are in each.

    groups  of the rows, by side
    """
    yield "all", np.ones(len(groups[SIDES[0]]), bool)
    for side in SIDES:
        for each in np.unique(groups[side][groups[side] > 0]).tolist():
            yield _title(side, each, segments), groups[side] == each


def _title(side: str, group: int, segments: int) -> str:
    return f"{side}s:{group}/{segments}"


@dataclass(frozen=True)
class LabelRows:
    """(user, item, segment): rows and the segment of their user or item; null where there is but one."""

    side: str
    segments: int

    @property
    def schema(self) -> pa.Schema:
        return schema_of(user=pa.int64(), item=pa.int64(), segment=pa.string())

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            group = batch.column(f"{self.side}_group")
            names = pa.array([None, *(_title(self.side, each, self.segments) for each in range(1, self.segments + 1))])
            yield pa.RecordBatch.from_arrays(
                [batch.column("user"), batch.column("item"), names.take(group)], schema=self.schema
            )


def bounds_of(counts: list[tuple[int, int]], segments: int) -> list[int]:
    """The largest train count of each group but the last: a count goes where the middle of those who have it is."""
    total = sum(n for _, n in counts)
    bounds = [-1] * (segments - 1)
    before = 0
    for count, n in sorted(counts):
        group = int(segments * (before + n / 2) / total)
        bounds[group:] = [count] * len(bounds[group:])
        before += n
    return bounds
