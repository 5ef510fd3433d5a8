"""What users did, in order: sequences to train on, and the histories of those who ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from sparkrec.config import SequenceSettings
from sparkrec.kernels.arrays import I64
from sparkrec.kernels.csr import located
from sparkrec.kernels.ragged import Ragged
from sparkrec.kernels.sequences import Cut, Cutter, Latest
from sparkrec.spark.arrow.blocks import read_lists
from sparkrec.spark.arrow.packed_rows import schema_of
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.platform.few import narrowed
from sparkrec.spark.runner import Rows

EVENT = ("user", "item", "timestamp")
"""Columns of events that have an order."""
_TIMED = schema_of(user=pa.int64(), item=pa.int64(), time=pa.int64())
_SEQUENCES = schema_of(user=pa.int64(), session=pa.int32(), place=pa.int64(), items=pa.list_(pa.int64()))
_HISTORIES = schema_of(user=pa.int64(), items=pa.list_(pa.int64()))
_MICROSECONDS = 1_000_000
_OLDEST = -(2**62)
"""Before all times, as one that is missing is; pauses after it are numbers still."""


def sequences(events: DataFrame, settings: SequenceSettings) -> DataFrame:
    """(user, session, place, items): the events of each user, in the order of time, then of items, cut as
    `kernels.sequences.Cutter` says. Those of a user are later in time the larger their `place`.

    events  user long, item long, timestamp
    """

    def plan(events: Rows) -> DataFrame:
        return in_order(events, CutSequences(settings)).frame()

    return carry_out("sequences", plan, narrowed(events, *EVENT))


def histories(events: DataFrame, settings: SequenceSettings, users: DataFrame | None = None) -> DataFrame:
    """(user, items array<long>): the last `length` events of each user, and of the last session alone if sessions are
    told apart.

    events  user long, item long, timestamp
    users   (user) whose histories are asked for; None: all
    """

    def plan(events: Rows, users: Rows | None) -> DataFrame:
        return in_order(events if users is None else events.only(users, "user"), LastEvents(settings)).frame()

    asking = None if users is None else narrowed(users, "user")
    return carry_out("histories", plan, narrowed(events, *EVENT), asking)


def in_order(events: Rows, task: CutSequences | LastEvents) -> Rows:
    """Events (user, item, timestamp) handed to a task in the order of users, of time, then of items."""
    return events.map_rows(TellTime()).map_sorted(["user"], task, then=["time", "item"])


@dataclass(frozen=True)
class TellTime:
    """(user, item, time) of events: microseconds, as a number."""

    schema: pa.Schema = _TIMED

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            time = micros(batch.column("timestamp")).fill_null(_OLDEST)
            columns = [batch.column(name).cast(pa.int64()) for name in ("user", "item")]
            yield pa.RecordBatch.from_arrays([*columns, time], schema=_TIMED)


def micros(timestamps: pa.Array) -> pa.Array:
    """Timestamps as microseconds, int64; null where there is none."""
    if pa.types.is_null(timestamps.type):
        return timestamps.cast(pa.int64())
    zone = getattr(timestamps.type, "tz", None)
    return timestamps.cast(pa.timestamp("us", zone)).cast(pa.int64())


@dataclass(frozen=True)
class CutSequences:
    """Sequences of events (user, item, time) in order; holds a batch of them, however many a user has."""

    settings: SequenceSettings

    @property
    def schema(self) -> pa.Schema:
        return _SEQUENCES

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        settings, place = self.settings, 0
        cutter = Cutter(settings.length, settings.targets, _gap(settings))
        for batch in batches:
            found = cutter.feed(*_arrays(batch))
            yield _rows(found, place)
            place += len(found.user)
        yield _rows(cutter.end(), place)


@dataclass(frozen=True)
class LastEvents:
    """The history of each user, of events (user, item, time) in order; holds a batch of them."""

    settings: SequenceSettings

    @property
    def schema(self) -> pa.Schema:
        return _HISTORIES

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        latest = Latest(self.settings.length, _gap(self.settings))
        for batch in batches:
            yield self._batch(*latest.feed(*_arrays(batch)))
        yield self._batch(*latest.end())

    def _batch(self, user: I64, items: Ragged) -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays([pa.array(user), items.arrow()], schema=_HISTORIES)


def _arrays(batch: pa.RecordBatch) -> Iterator[I64]:
    return (batch.column(name).to_numpy() for name in _TIMED.names)


def _gap(settings: SequenceSettings) -> int | None:
    return None if settings.session_gap is None else round(settings.session_gap * _MICROSECONDS)


def ordered(events: DataFrame, settings: SequenceSettings) -> DataFrame:
    """(user, session, item, time) of events (user, item, timestamp): sessions of a user count from 0."""
    timed = events.select("user", "item", F.coalesce(F.unix_micros("timestamp"), F.lit(_OLDEST)).alias("time"))
    if settings.session_gap is None:
        return timed.withColumn("session", F.lit(0))
    in_time = Window.partitionBy("user").orderBy("time", "item")
    pause = F.col("time") - F.lag("time").over(in_time) > F.lit(_gap(settings))
    opens = F.coalesce(pause, F.lit(False)).cast("int")
    return timed.withColumn("opens", opens).withColumn("session", F.sum("opens").over(in_time)).drop("opens")


def encode_items(rows: DataFrame, items: I64) -> DataFrame:
    """The rows with `items` array<int>, as `EncodeItems` has them."""

    def plan(rows: Rows) -> DataFrame:
        return rows.map_rows(EncodeItems.of(rows, items)).frame()

    return carry_out("items", plan, rows)


@dataclass(frozen=True)
class EncodeItems:
    """Rows with `items` list<int64>, and any other columns, with the places of these among ascending ids instead; an
    item that is not there is left out, and so is a row that has no other.

    others  (name, type) of the other columns
    """

    items: I64
    others: tuple[tuple[str, pa.DataType], ...]

    @classmethod
    def of(cls, rows: Rows, items: I64) -> EncodeItems:
        """For rows that have such columns."""
        return cls(items, tuple((name, rows.kind(name)) for name in rows.columns if name != "items"))

    @property
    def schema(self) -> pa.Schema:
        return schema_of(**dict(self.others), items=pa.list_(pa.int32()))

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            lists = read_lists(batch.column("items"), np.int64)
            at, there = located(lists.values, self.items)
            known = lists.keep(there, at.astype(np.int32)).arrow()
            columns = [*(batch.column(name) for name, _ in self.others), known]
            yield pa.RecordBatch.from_arrays(columns, schema=self.schema).filter(
                pc.greater(pc.list_value_length(known), 0)
            )


def _rows(found: Cut, place: int) -> pa.RecordBatch:
    places = pa.array(np.arange(place, place + len(found.user)))
    columns: list[Any] = [pa.array(found.user), pa.array(found.session.astype(np.int32)), places, found.items.arrow()]
    return pa.RecordBatch.from_arrays(columns, ["user", "session", "place", "items"])
