"""What users did, in order: sequences to train on, and the histories of those who ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from sparkrec.config import SequenceSettings
from sparkrec.kernels.arrays import I64
from sparkrec.kernels.csr import located
from sparkrec.kernels.sequences import Cut, Cutter
from sparkrec.spark.arrow.blocks import read_lists
from sparkrec.spark.arrow.packed_rows import schema_of
from sparkrec.spark.runner import RowFunction, map_rows, types_of

_SEQUENCES = schema_of(user=pa.int64(), session=pa.int32(), place=pa.int64(), items=pa.list_(pa.int64()))
_MICROSECONDS = 1_000_000
_OLDEST = -(2**62)
"""Before all times, as one that is missing is; pauses after it are numbers still."""


def sequences(events: DataFrame, settings: SequenceSettings) -> DataFrame:
    """(user, session, place, items): the events of each user, in the order of time, then of items, cut as
    `kernels.sequences.Cutter` says. Those of a user are later in time the larger their `place`.

    events  user long, item long, timestamp
    A task sorts the events of a user and goes over them once: it holds a batch of them, however many there are.
    """
    ordered = _timed(events).repartition("user").sortWithinPartitions("user", "time", "item")

    def cut(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        cutter, place = Cutter(settings.length, settings.targets, _gap(settings)), 0
        for batch in batches:
            found = cutter.feed(*(batch.column(name).to_numpy() for name in ("user", "item", "time")))
            yield _rows(found, place)
            place += len(found.user)
        yield _rows(cutter.end(), place)

    return map_rows(ordered, RowFunction(_SEQUENCES, cut))


def histories(events: DataFrame, settings: SequenceSettings) -> DataFrame:
    """(user, items array<long>): the last `length` events of each user, and of the last session alone if sessions are
    told apart.

    events  user long, item long, timestamp
    """
    latest = Window.partitionBy("user").orderBy(F.desc("time"), F.desc("item"))
    placed = _timed(events).withColumn("place", F.row_number().over(latest)).where(F.col("place") <= settings.length)
    if settings.session_gap is not None:
        # A pause after the last of them ends what came before it.
        pause = F.lag("time").over(latest) - F.col("time") > F.lit(_gap(settings))
        before = F.sum(F.coalesce(pause.cast("int"), F.lit(0))).over(latest)
        placed = placed.withColumn("before", before).where("before = 0")
    oldest_first = F.sort_array(F.collect_list(F.struct((-F.col("place")).alias("order"), "item")))
    return placed.groupBy("user").agg(oldest_first.alias("events")).select("user", F.col("events.item").alias("items"))


def _timed(events: DataFrame) -> DataFrame:
    return events.select("user", "item", F.coalesce(F.unix_micros("timestamp"), F.lit(_OLDEST)).alias("time"))


def _gap(settings: SequenceSettings) -> int | None:
    return None if settings.session_gap is None else round(settings.session_gap * _MICROSECONDS)


def ordered(events: DataFrame, settings: SequenceSettings) -> DataFrame:
    """(user, session, item, time) of events (user, item, timestamp): sessions of a user count from 0."""
    timed = _timed(events)
    if settings.session_gap is None:
        return timed.withColumn("session", F.lit(0))
    in_time = Window.partitionBy("user").orderBy("time", "item")
    pause = F.col("time") - F.lag("time").over(in_time) > F.lit(_gap(settings))
    opens = F.coalesce(pause, F.lit(False)).cast("int")
    return timed.withColumn("opens", opens).withColumn("session", F.sum("opens").over(in_time)).drop("opens")


def encode_items(rows: DataFrame, items: I64) -> DataFrame:
    """The rows with `items` array<int>: their places among the ascending `items` instead of ids; an item that is not
    there is left out.

    rows  with `items` array<long>, and any other columns
    """
    names = [name for name in rows.columns if name != "items"]
    schema = schema_of(**types_of(rows, names), items=pa.list_(pa.int32()))

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            lists = read_lists(batch.column("items"), np.int64)
            at, there = located(lists.values, items)
            known = lists.keep(there, at.astype(np.int32))
            columns = [*(batch.column(name) for name in names), known.arrow()]
            yield pa.RecordBatch.from_arrays(columns, [*names, "items"])

    return map_rows(rows, RowFunction(schema, work)).where("size(items) > 0")


def _rows(found: Cut, place: int) -> pa.RecordBatch:
    places = pa.array(np.arange(place, place + len(found.user)))
    columns: list[Any] = [pa.array(found.user), pa.array(found.session.astype(np.int32)), places, found.items.arrow()]
    return pa.RecordBatch.from_arrays(columns, ["user", "session", "place", "items"])
