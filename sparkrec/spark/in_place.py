"""Plans of tasks on few rows are carried out in this process: no job, no shuffle, no worker.

What Spark would do for a second, be it for a thousand rows, threads of the driver do for a million in less. A plan does
not know where it runs: `carry_out` gives it `Rows`.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache, reduce
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from threadpoolctl import ThreadpoolController

from sparkrec import storage
from sparkrec.kernels.ragged import starts_of
from sparkrec.kernels.rankings import numbered
from sparkrec.spark.platform.before_spark_4 import to_arrow
from sparkrec.spark.platform.conf import is_local
from sparkrec.spark.platform.few import collected, frame_of, is_here
from sparkrec.spark.platform.keeping import kept, release
from sparkrec.spark.platform.partitions import task_slots
from sparkrec.spark.runner import Broadcast, Described, GroupTask, Rows, RowTask, SparkRows

log = logging.getLogger(__name__)

T = TypeVar("T")

IN_PLACE, ON_SPARK = "in place", "on Spark"
_noted: ContextVar[dict[str, str] | None] = ContextVar("_noted", default=None)
_WORTH_A_THREAD = 1 << 19
"""Bytes of rows from which several threads share them."""


def carry_out(label: str, plan: Callable[..., T], *frames: DataFrame | None, fetch: bool = True) -> T:
    """What a plan makes of the rows of some DataFrames: `plan(rows, ...)`, None where the frame is None.

    The rows are brought here where they are few. Where this process then has too little memory for them, the plan
    begins again on Spark.

    label  of the plan, for the log
    fetch  whether rows are worth a job that brings them here, for this plan alone
    """
    tables = collected([frame for frame in frames if frame is not None], fetch)
    if tables is not None:
        of_frames = iter(tables)
        here = [None if frame is None else LocalRows(frame.sparkSession, next(of_frames)) for frame in frames]
        log.debug("%s: in place, %.1f MB of rows", label, sum(table.nbytes for table in tables) / 1e6)
        _note(label, IN_PLACE)
        try:
            with serial_blas():
                return plan(*here)
        except MemoryError:
            log.warning("%s: too little memory in this process; beginning again on Spark", label)
    _note(label, ON_SPARK)
    return plan(*(None if frame is None else SparkRows(frame) for frame in frames))


def serial_blas() -> AbstractContextManager[object]:
    """Lets products of matrices add up in one thread, as in a worker of Spark: those of this process share the cores
    already. Threads that plans are carried out in need it around them, too: who ends first restores what was before."""
    limited: AbstractContextManager[object] = _pools(len(sys.modules)).limit(limits=1, user_api="blas")
    return limited


@contextmanager
def noted() -> Iterator[dict[str, str]]:
    """Where the plans of the body are carried out: IN_PLACE or ON_SPARK, by their labels."""
    notes: dict[str, str] = {}
    token = _noted.set(notes)
    try:
        yield notes
    finally:
        _noted.reset(token)


def _note(label: str, where: str) -> None:
    if (notes := _noted.get()) is not None:
        notes[label] = where


def write(frame: DataFrame, folder: str, *names: str) -> None:
    """Write rows to Parquet files, instead of what the folder has: to one, where they are few.

    names  of the columns to write; none: all
    """
    carry_out("write", lambda rows: (rows.select(*names) if names else rows).write(folder), frame)


def computed(label: str, frame: DataFrame) -> DataFrame:
    """The same rows, computed once: now and here, where they are few, else when they are first read."""

    def plan(rows: Rows) -> DataFrame:
        return rows.computed().frame()

    return frame if is_here(frame) else carry_out(label, plan, frame)


def count(label: str, frame: DataFrame) -> int:
    """How many rows there are."""

    def plan(rows: Rows) -> int:
        return rows.count()

    return carry_out(label, plan, frame)


@contextmanager
def holding() -> Iterator[Callable[[DataFrame], DataFrame]]:
    """A function that makes Spark keep the rows of a DataFrame once they are read, until the body ends."""
    with ExitStack() as held:

        def hold(frame: DataFrame) -> DataFrame:
            if not is_here(frame):
                frame = kept(frame)
                held.callback(release, frame)
            return frame

        yield hold


class LocalRows(Rows):
    """Rows in this process. Each step is carried out at once, tasks by as many threads as there are cores."""

    def __init__(self, spark: SparkSession, table: pa.Table, keeps: bool = False) -> None:
        self.spark = spark
        self._table = table
        self._keeps = keeps  # whether Spark is to keep them, should it read them

    @property
    def columns(self) -> list[str]:
        return list(self._table.column_names)

    @property
    def slots(self) -> int:
        return cores_for(self.spark)

    @property
    def in_this_process(self) -> bool:
        return True

    def kind(self, name: str) -> pa.DataType:
        return self._table.schema.field(name).type

    def of(self, rows: DataFrame | pa.Table) -> LocalRows:
        return LocalRows(self.spark, rows if isinstance(rows, pa.Table) else to_arrow(rows))

    def made(self, folder: str, schema: pa.Schema, parts: Iterable[pa.Table]) -> LocalRows:
        return self.of(pa.concat_tables([schema.empty_table(), *parts]))

    def none(self) -> LocalRows:
        return self.of(self._table.schema.empty_table())

    def select(self, *names: str, **renamed: str) -> LocalRows:
        table = self._table.select([*names, *renamed.values()])
        return self.of(table.rename_columns([*names, *renamed]))

    def named(self, *names: str) -> LocalRows:
        return self.of(self._table.rename_columns(list(names)))

    def filled(self, **values: pa.Scalar) -> LocalRows:
        table = self._table
        for name, value in values.items():
            table = table.append_column(name, pa.repeat(value, table.num_rows))
        return self.of(table)

    def coalesced(self, **values: pa.Scalar) -> LocalRows:
        table = self._table
        for name, value in values.items():
            at = table.column_names.index(name)
            table = table.set_column(at, name, table[name].fill_null(value))
        return self.of(table)

    def where_null(self, name: str) -> LocalRows:
        return self.of(self._table.filter(pc.is_null(self._table[name])))

    def where_present(self, name: str) -> LocalRows:
        return self.of(self._table.filter(pc.is_valid(self._table[name])))

    def where_is(self, name: str, value: str | int) -> LocalRows:
        return self.of(self._table.filter(pc.equal(self._table[name], value)))

    def where_is_not(self, name: str, value: str | int) -> LocalRows:
        return self.of(self._table.filter(pc.not_equal(self._table[name], value)))

    def where_at_least(self, name: str, least: int) -> LocalRows:
        return self.of(self._table.filter(pc.greater_equal(self._table[name], least)))

    def where_below(self, name: str, bound: int) -> LocalRows:
        return self.of(self._table.filter(pc.less(self._table[name], bound)))

    def where_not_finite(self, *names: str) -> LocalRows:
        finite = reduce(pc.and_, (pc.is_finite(self._table[name]).fill_null(False) for name in names))
        return self.of(self._table.filter(pc.invert(finite)))

    def union(self, other: LocalRows) -> LocalRows:
        return self.of(pa.concat_tables([self._table, other._table], promote_options="default"))

    def counted(self, *keys: str) -> LocalRows:
        counted = self._table.group_by([*keys]).aggregate([([], "count_all")])
        return self.of(counted.rename_columns([*keys, "n"]))

    def joined(self, other: LocalRows, *keys: str, every: bool = False) -> LocalRows:
        mine, theirs = _comparable(self._table, other._table, keys)
        at, table = pc.index_in(mine, theirs), self._table
        if at.null_count and not every:
            table, at = table.filter(pc.is_valid(at)), at.drop_null()
        for name in other.columns:
            if name not in keys:
                table = table.append_column(name, other._table[name].take(at))
        return self.of(table)

    def only(self, other: LocalRows, key: str) -> LocalRows:
        return self.of(self._table.filter(self._is_in(other, key)))

    def without(self, other: LocalRows, key: str) -> LocalRows:
        return self.of(self._table.filter(pc.invert(self._is_in(other, key))))

    def distinct(self) -> LocalRows:
        return self.of(self._table.group_by(self.columns).aggregate([]))

    def greatest(self, *keys: str) -> LocalRows:
        return self._folded("max", keys)

    def least(self, *keys: str) -> LocalRows:
        return self._folded("min", keys)

    def _folded(self, end: str, keys: Sequence[str]) -> LocalRows:
        others = [name for name in self.columns if name not in keys]
        if _all_differ(self._table, keys):
            return self.select(*keys, *others)
        made = self._table.group_by(list(keys)).aggregate([(name, end) for name in others])
        return self.of(made.select([*keys, *(f"{name}_{end}" for name in others)]).rename_columns([*keys, *others]))

    def sorted(self, *keys: str) -> LocalRows:
        return self.of(self._table.sort_by([(key, "ascending") for key in keys]))

    def described(self, *names: str) -> list[Described]:
        return [_described(self._table[name].cast(pa.float64())) for name in names]

    def map_rows(self, task: RowTask, whole: bool = False) -> LocalRows:
        def work(part: pa.Table) -> pa.Table:
            return _table_of(task(part.combine_chunks().to_batches()), task.schema)

        return self._gathered(work, [self._table] if whole else _parts(self._table, self.slots), task.schema)

    def map_sorted(self, key: Sequence[str], task: RowTask, then: Sequence[str] = ()) -> LocalRows:
        table = self._table.sort_by([(name, "ascending") for name in (*key, *then)]).combine_chunks()
        parts = [table.slice(first, stop - first) for first, stop in _key_ranges(table, key, self.slots)]
        return self._gathered(lambda part: _table_of(task(part.to_batches()), task.schema), parts, task.schema)

    def map_pairs(self, right: LocalRows, task: RowTask, broadcast: Broadcast) -> LocalRows:
        lefts, rights = _single(self._table), _single(right._table)

        def work(part: Sequence[pa.RecordBatch]) -> pa.Table:
            pairs = (_beside(left, each) for left in part for each in rights)
            return _table_of(task(pairs), task.schema)

        parts = [lefts[first:stop] for first, stop in _ranges(len(lefts), self.slots)]
        return self._gathered(work, parts, task.schema)

    def map_groups(self, key: str, task: GroupTask, partitions: int | None = None) -> LocalRows:
        def work(group: pa.Table) -> pa.Table:
            return _cast(task(group), task.schema)

        return self._gathered(work, _groups(self._table, key), task.schema)

    def kept(self) -> LocalRows:
        return LocalRows(self.spark, self._table, keeps=True)

    def computed(self) -> LocalRows:
        return self

    def held(self, key: str, partitions: int, level: StorageLevel) -> LocalRows:
        return self

    def release(self) -> None:
        pass

    def write(self, folder: str) -> None:
        storage.delete(folder)
        storage.write(f"{folder}/part-00000.parquet", storage.parquet(self._table))

    def read(self, folder: str) -> LocalRows:
        return self.of(pa.concat_tables(storage.read_parquet(folder)))

    def stored(self, folder: str) -> LocalRows:
        return self

    def partitioned(self, key: str, partitions: int) -> LocalRows:
        return self

    def measured(self, lists: str | None, *others: LocalRows) -> list[tuple[int, int]]:
        values = [pc.sum(pc.list_value_length(each._table[lists])).as_py() if lists else 0 for each in (self, *others)]
        return [(each.count(), n or 0) for each, n in zip((self, *others), values, strict=True)]

    def count(self) -> int:
        return int(self._table.num_rows)

    def table(self) -> pa.Table:
        return self._table

    def each(self) -> Iterator[dict[str, Any]]:
        return (row for batch in self._table.to_batches(max_chunksize=1) for row in batch.to_pylist())

    def frame(self) -> DataFrame:
        return frame_of(self.spark, self._table, self._keeps)

    def _is_in(self, other: LocalRows, key: str) -> pa.ChunkedArray:
        return pc.is_in(self._table[key], other._table[key].combine_chunks())

    def _gathered(self, work: Callable[[Any], pa.Table], parts: Sequence[Any], schema: pa.Schema) -> LocalRows:
        made = [*_threads(self.slots).map(work, parts)]
        return self.of(pa.concat_tables(made) if made else schema.empty_table())


@lru_cache(maxsize=1)  # it looks at every library that is loaded, and a plan may come with another
def _pools(_modules: int) -> ThreadpoolController:
    """The threads of libraries, where so many modules are imported."""
    return ThreadpoolController()


@lru_cache(maxsize=1)  # it takes calls of the JVM, and each step of a plan asks
def cores_for(spark: SparkSession) -> int:
    """How many threads run at once: as many as this process has cores, and a local session slots."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(here, task_slots(spark)) if is_local(spark) else here


@cache
def _threads(n: int) -> ThreadPoolExecutor:
    pools = ThreadpoolController()  # found here, since libraries may be loaded while the threads start
    return ThreadPoolExecutor(n, "sparkrec", initializer=lambda: pools.limit(limits=1, user_api="openmp"))


def _comparable(left: pa.Table, right: pa.Table, keys: Sequence[str]) -> tuple[pa.ChunkedArray, pa.Array]:
    """One column of each table instead of several: two rows have the same value there where all keys are the same."""
    columns = [(left[key], right[key].combine_chunks()) for key in keys]
    mine, theirs = columns[0]
    for column in columns[1:]:
        one, two = pc.unique(theirs), pc.unique(column[1])
        mine, theirs = (
            pc.add(pc.multiply(pc.index_in(first, one).cast(pa.int64()), len(two)), pc.index_in(second, two))
            for first, second in zip((mine, theirs), column, strict=True)
        )
    return mine, theirs


def _all_differ(table: pa.Table, keys: Sequence[str]) -> bool:
    """Whether no two rows have the same keys, told in a fraction of the time that it takes to put them together."""
    code, different = np.zeros(table.num_rows, np.int64), 1
    for key in keys:
        encoded = table[key].combine_chunks().dictionary_encode(null_encoding="encode")
        found, places = numbered(code * len(encoded.dictionary) + encoded.indices.to_numpy())
        code, different = places.astype(np.int64), len(found)
    return bool(different == table.num_rows)


def _parts(table: pa.Table, slots: int) -> list[pa.Table]:
    """The rows, in as many ranges as there are slots if they are worth it."""
    n = min(slots, table.num_rows) if table.nbytes >= _WORTH_A_THREAD else 1
    return [table.slice(first, stop - first) for first, stop in _ranges(table.num_rows, n)]


def _ranges(n: int, parts: int) -> Iterator[tuple[int, int]]:
    """First and stop of so many ranges of n rows, or n, as equal as can be."""
    bounds = [n * part // parts for part in range(parts + 1)]
    return (each for each in pairwise(bounds) if each[0] < each[1])


def _key_ranges(table: pa.Table, key: Sequence[str], n: int) -> list[tuple[int, int]]:
    """First and stop of about n ranges of sorted rows; all rows of a key are in one."""
    begins = np.zeros(table.num_rows, bool)
    for name in key:
        codes = table[name].combine_chunks().dictionary_encode(null_encoding="encode").indices.to_numpy()
        begins[1:] |= codes[1:] != codes[:-1]
    starts = np.flatnonzero(begins)
    wanted = [table.num_rows * part // n for part in range(1, n)]
    bounds = [starts[at] for at in np.searchsorted(starts, wanted) if at < len(starts)]
    return [each for each in pairwise([0, *dict.fromkeys(bounds), table.num_rows]) if each[0] < each[1]]


def _single(table: pa.Table) -> list[pa.RecordBatch]:
    """Each row alone, where it is."""
    return [batch.slice(at, 1) for batch in table.to_batches() for at in range(batch.num_rows)]


def _beside(left: pa.RecordBatch, right: pa.RecordBatch) -> pa.RecordBatch:
    """The columns of both."""
    names = [*left.schema.names, *right.schema.names]
    return pa.RecordBatch.from_arrays([*left.columns, *right.columns], names)


def _described(values: pa.ChunkedArray) -> Described:
    found = pc.mean(values), pc.stddev(values, ddof=1), pc.min(values), pc.max(values), pc.count_distinct(values)
    return Described(len(values), *(each.as_py() for each in found))


def _groups(table: pa.Table, key: str) -> list[pa.Table]:
    """The rows of each key, keys ascending, in the order in which they are."""
    _, code = np.unique(table[key].to_numpy(), return_inverse=True)
    order = np.argsort(code, kind="stable")
    start = starts_of(np.bincount(code)) if len(code) else np.zeros(1, np.int64)
    table = table.combine_chunks().take(order)
    return [table.slice(first, stop - first) for first, stop in pairwise(start.tolist())]


def _table_of(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    made = [_cast(pa.Table.from_batches([each]), schema) for each in batches]
    return pa.concat_tables(made) if made else schema.empty_table()


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A task's result with the columns that it says: by name, as Spark takes them."""
    return table.select(schema.names).cast(schema)
