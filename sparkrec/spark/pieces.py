"""What is known of a user, in pieces: arrays of the rows that a task finds of it.

Spark moves and sorts thousands of pieces instead of millions of rows; those of a user then meet in one task.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, IntegralType

from sparkrec.kernels.arrays import F64, I64
from sparkrec.spark.arrow_rows import joined
from sparkrec.spark.blocks import Ragged, read_lists

PIECES = "user long, side int, label string, items binary, data binary"
"""`side` says what the rows are, `label` which of several such: int64 `items`, and of each a float64 in `data`."""
ROWS = 1 << 20
"""Rows at a time from which pieces are made, and numbers of a table of `whole_users`."""


def pieces(frame: DataFrame, label: Column, data: Column, side: int) -> DataFrame:
    """PIECES of rows (user, item), of any partitioning; where items are arrays, each row is one, and places are its
    data."""
    lists = isinstance(frame.schema["item"].dataType, ArrayType)

    def number(name: str) -> Column:
        kind = frame.schema[name].dataType
        if isinstance(kind, ArrayType):
            whole = isinstance(kind.elementType, IntegralType)
            return F.transform(name, lambda each: each.cast("long") if whole else F.xxhash64(each)).alias(name)
        return (F.col(name).cast("long") if isinstance(kind, IntegralType) else F.xxhash64(name)).alias(name)

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        if lists:
            yield from (_of_lists(batch, side) for batch in batches)
            return
        yield from (_of_rows(table, side) for table in joined(batches, ROWS))

    rows = frame.select(number("user"), label.alias("label"), number("item"), data.alias("data"))
    return rows.mapInArrow(work, PIECES)


def _of_lists(batch: pa.RecordBatch, side: int) -> pa.RecordBatch:
    """Each row a piece."""
    lists = read_lists(batch.column("item"), np.int64)
    places = np.arange(1.0, len(lists.values) + 1) - np.repeat(lists.start[:-1], lists.lengths)
    return _batch(batch.column("user"), batch.column("label"), side, lists.start, lists.values, places)


def _of_rows(table: pa.Table, side: int) -> pa.RecordBatch:
    """Consecutive rows of a user and label as one piece; where few are, in their order."""
    user, item, data = (table[name].to_numpy() for name in ("user", "item", "data"))
    labels = table["label"].combine_chunks().dictionary_encode(null_encoding="encode")
    code = labels.indices.to_numpy()
    first = changes(user, code)
    if 4 * len(first) > len(user):
        order = np.lexsort((code, user))
        user, item, data, code = (each[order] for each in (user, item, data, code))
        first = changes(user, code)
    start = np.append(first, len(user))
    return _batch(pa.array(user[first]), labels.dictionary.take(pa.array(code[first])), side, start, item, data)


def changes(*columns: Any) -> I64:
    """Where a run of equal rows begins."""
    n = len(columns[0])
    other = np.ones(n, np.bool_)
    other[1:] = np.any([each[1:] != each[:-1] for each in columns], axis=0)
    return np.flatnonzero(other)


def _batch(user: pa.Array, label: pa.Array, side: int, start: I64, item: I64, data: F64) -> pa.RecordBatch:
    """Pieces of rows start[i] ... start[i + 1] - 1."""
    offsets = pa.py_buffer((8 * (start - start[0])).astype(np.int32))

    def binary(values: Any) -> pa.Array:
        return pa.Array.from_buffers(
            pa.binary(), len(user), [None, offsets, pa.py_buffer(np.ascontiguousarray(values[start[0] : start[-1]]))]
        )

    sides = pa.array(np.full(len(user), side, np.int32))
    columns = [user, sides, label.cast(pa.string()), binary(item), binary(data)]
    return pa.RecordBatch.from_arrays(columns, ["user", "side", "label", "items", "data"])


def numbers(column: pa.ChunkedArray, kind: type[np.generic]) -> Ragged:
    """The arrays of a binary column."""
    whole = column.combine_chunks()
    _, offsets, values = whole.buffers()
    start = np.frombuffer(offsets, np.int32)[whole.offset : whole.offset + len(whole) + 1].astype(np.int64) // 8
    numbers = np.frombuffer(values, kind) if values is not None else np.zeros(0, kind)
    return Ragged(start - start[0], numbers[start[0] : start[-1]])


def whole_users(batches: Iterable[pa.RecordBatch], most: int = ROWS) -> Iterator[pa.Table]:
    """Pieces that come user after user, in tables of whole users with about so many numbers."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        if not batch.num_rows:
            continue
        if size >= most:
            user = batch.column("user").to_numpy()
            last = held[-1].column("user")[-1].as_py()
            if (same := int(np.searchsorted(user, last, side="right"))) < len(user):
                yield pa.Table.from_batches([*held, batch.slice(0, same)])
                batch, held, size = batch.slice(same), [], 0
        held.append(batch)
        size += batch.column("items").nbytes // 8
    if held:
        yield pa.Table.from_batches(held)
