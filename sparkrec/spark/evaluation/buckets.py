"""Rows of many users in buckets: all rows of a user are in one, in any order, and no bucket is much larger than others.

Spark moves a few thousand arrays instead of millions of rows, and sorts nothing: who reads a bucket puts its rows in
order, which is a matter of counting (`kernels.rankings`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, IntegralType

from sparkrec.kernels.arrays import F64, I64
from sparkrec.kernels.csr import by_key
from sparkrec.kernels.random import uniform
from sparkrec.spark.arrow.blocks import read_lists
from sparkrec.spark.arrow.packed_rows import WIDTHS, joined, narrowest

BUCKETS = 1024
ROWS = 1 << 20
"""That are put into buckets together."""
_READ = 2 * ROWS
"""Users and items that are read together, of the narrowest."""
NOBODY = -1
"""The side of rows without a user or an item."""
_DATA = ("data", "beaten")
_ARRAYS = ("users", "lengths", "items", *_DATA)
"""Of a bucket: n users, the number of items of each, and the items, with data of each. Without lengths, each user has
one. Integers are as narrow as they can be, data float64."""
_SCHEMA = f"bucket int, side int, label string, n int, {', '.join(f'{name} binary' for name in _ARRAYS)}"


def buckets(
    frame: DataFrame, side: int, label: Column | None = None, data: Column | None = None, beaten: Column | None = None
) -> DataFrame:
    """Rows (user, item) in buckets, each of one `side` and `label`; ids as `number` has them.
    Where items are arrays, so are data."""
    lists = isinstance(frame.schema["item"].dataType, ArrayType)
    kind = "array<double>" if lists else "double"
    columns = [number(frame, "user"), number(frame, "item")]
    columns += [] if label is None else [label.alias("label")]
    columns += [
        each.cast(kind).alias(name) for name, each in zip(_DATA, (data, beaten), strict=True) if each is not None
    ]

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for table in joined(batches, 1 if lists else ROWS):
            yield _scattered(table, side, lists)

    return frame.select(*columns).mapInArrow(work, _SCHEMA)


def number(frame: DataFrame, name: str) -> Column:
    """Ids, or arrays of ids, as 64-bit integers: those that are none are hashed."""
    column, kind = F.col(name), frame.schema[name].dataType
    element = kind.elementType if isinstance(kind, ArrayType) else kind
    if isinstance(element, IntegralType):
        return column.cast("array<long>" if isinstance(kind, ArrayType) else "long")
    hashed = F.transform(name, _hashed) if isinstance(kind, ArrayType) else _hashed(column)
    return hashed.alias(name)


def _hashed(column: Column) -> Column:
    return F.when(column.isNotNull(), F.xxhash64(column))


def _scattered(table: pa.Table, side: int, lists: bool) -> pa.RecordBatch:
    """A row a bucket and label."""
    whole = {name: table[name].combine_chunks() for name in table.column_names}
    nobody = whole["user"].null_count + (whole["item"].values if lists else whole["item"]).null_count
    if nobody:
        none, bounds = np.zeros(nobody, np.int64), np.array([0, nobody])
        return _batch(np.zeros(1, np.int64), NOBODY, [None], bounds, {"users": (none, bounds), "items": (none, bounds)})
    user = whole["user"].to_numpy()
    names: list[str | None] = [None]
    key = (uniform(0, user) * BUCKETS).astype(np.int32)
    if "label" in whole:
        labels = whole["label"].dictionary_encode(null_encoding="encode")
        names = labels.dictionary.to_pylist()
        key += np.int32(BUCKETS) * labels.indices.to_numpy()
    start, order = by_key(key, BUCKETS * len(names))
    full = np.flatnonzero(np.diff(start))
    bounds = np.append(start[full], start[-1])
    arrays = {"users": (user[order], bounds)}
    if lists:
        items = read_lists(whole["item"], np.int64).take(order)
        arrays |= {"lengths": (items.lengths, bounds), "items": (items.values, items.start[bounds])}
    else:
        arrays["items"] = whole["item"].to_numpy()[order], bounds
    for name in _DATA:
        if name in whole and lists:
            values = read_lists(whole[name], np.float64)
            if (values.lengths[order] != items.lengths).any():
                raise ValueError(f"{name}: found arrays of other lengths than those of items")
            arrays[name] = values.take(order).values, items.start[bounds]
        elif name in whole:
            arrays[name] = whole[name].to_numpy(zero_copy_only=False)[order], bounds
    return _batch(full % BUCKETS, side, [names[each] for each in full // BUCKETS], bounds, arrays)


def _batch(
    bucket: I64, side: int, labels: list[str | None], bounds: I64, arrays: dict[str, tuple[NDArray[Any], I64]]
) -> pa.RecordBatch:
    """Of each array, all buckets one after the other, and where each begins."""
    n = len(bucket)
    columns = {
        "bucket": pa.array(bucket.astype(np.int32)),
        "side": pa.array(np.full(n, side, np.int32)),
        "label": pa.array(labels, pa.string()),
        "n": pa.array(np.diff(bounds).astype(np.int32)),
    }
    for name in _ARRAYS:
        columns[name] = _cells(*arrays[name]) if name in arrays else pa.nulls(n, pa.binary())
    return pa.RecordBatch.from_pydict(columns)


def _cells(values: NDArray[Any], bounds: I64) -> pa.Array:
    values = narrowest(values) if values.dtype == np.int64 else values
    offsets = pa.py_buffer((values.itemsize * bounds).astype(np.int32))
    return pa.Array.from_buffers(pa.binary(), len(bounds) - 1, [None, offsets, pa.py_buffer(values)])


class Rows(NamedTuple):
    """Those of a side and label."""

    user: I64
    """(n,)"""
    lengths: I64 | None
    """(n,) of lists; None: a row is one item."""
    item: I64
    data: F64 | None
    """Of each item, where there is any."""
    beaten: F64 | None
    """The same, another."""


Table: TypeAlias = dict[tuple[int, str | None], Rows]
"""By side and label."""


def whole_users(batches: Iterable[pa.RecordBatch]) -> Iterator[Table]:
    """Of buckets that come one after the other: all rows of some users, about ROWS at a time."""
    for table in _whole_buckets(batches):
        cells = {name: table[name].combine_chunks() for name in _ARRAYS}
        at: dict[tuple[int, str | None], list[int]] = {}
        for row, each in enumerate(zip(table["side"].to_pylist(), table["label"].to_pylist(), strict=True)):
            at.setdefault(each, []).append(row)
        yield {each: _rows(cells, rows, table["n"].to_numpy()) for each, rows in at.items()}


def _rows(cells: dict[str, pa.BinaryArray], rows: list[int], n: I64) -> Rows:
    def array(name: str, sizes: list[int]) -> NDArray[Any]:
        parts = []
        for row, size in zip(rows, sizes, strict=True):
            cell = cells[name][row].as_buffer()
            kind = np.float64 if name in _DATA else WIDTHS[cell.size // size if size else 8]
            parts.append(np.frombuffer(cell, kind))
        return np.concatenate(parts, dtype=np.float64 if name in _DATA else np.int64)

    sizes = [int(n[row]) for row in rows]
    user = array("users", sizes)
    lengths = None
    if cells["lengths"][rows[0]].is_valid:
        lengths = array("lengths", sizes)
        sizes = np.add.reduceat(lengths, np.cumsum([0, *sizes[:-1]])).tolist()
    data, beaten = (array(name, sizes) if cells[name][rows[0]].is_valid else None for name in _DATA)
    return Rows(user, lengths, array("items", sizes), data, beaten)


def _whole_buckets(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    size, last = 0, -1
    for batch in batches:
        bucket = batch.column("bucket").to_numpy()
        items = pc.binary_length(batch.column("items")).to_numpy() // min(WIDTHS)
        upto = np.append(0, np.cumsum(batch.column("n").to_numpy() + items))
        first = 0
        for row in np.flatnonzero(np.diff(bucket, prepend=last)).tolist():
            if size + upto[row] - upto[first] >= _READ:
                yield pa.Table.from_batches([*held, batch.slice(first, row - first)])
                held, size, first = [], 0, row
        held.append(batch.slice(first))
        size, last = size + int(upto[-1] - upto[first]), bucket[-1]
    if held:
        yield pa.Table.from_batches(held)
