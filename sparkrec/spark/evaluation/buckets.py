"""Rows of many users in buckets: all rows of a user are in one, in any order, and no bucket is much larger than others.

A few thousand arrays are moved instead of millions of rows, and nothing is sorted on the way: the reader of a bucket
puts its rows in order, which is a matter of counting (`kernels.rankings`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sparkrec.kernels.arrays import F64, I64
from sparkrec.kernels.csr import by_key
from sparkrec.kernels.random import uniform
from sparkrec.spark.arrow.blocks import read_lists
from sparkrec.spark.arrow.packed_rows import WIDTHS, joined, narrowest, schema_of

BUCKETS = 1024
ROWS = 1 << 20
"""Rows that are put into buckets together."""
_READ = 2 * ROWS
"""Users and items that are read together, of the narrowest."""
NOBODY = -1
"""The side of rows without a user or an item: they are only counted."""
_DATA = ("data", "auc_share")
_ARRAYS = ("users", "lengths", "items", *_DATA)
"""Of a bucket: n users, the number of items of each, and the items, with data of each. Without lengths, each user has
one. Integers are as narrow as they can be, data float64."""
_SCHEMA = schema_of(
    bucket=pa.int32(),
    side=pa.int32(),
    label=pa.string(),
    n=pa.int32(),
    **dict.fromkeys(_ARRAYS, pa.binary()),
)


@dataclass(frozen=True)
class FillBuckets:
    """The task that puts rows (user, item), of integer ids, into buckets. Without items, each is 0.

    Further columns are `label`, which tells rows apart that are measured apart, and the numbers `data` and `auc_share`
    of each item. Raises ValueError where the arrays of a row differ in length.
    """

    side: int
    """What the rows are."""
    lists: bool
    """Whether items, and numbers of them, are arrays."""
    columns: dict[str, str]
    """What these columns are called in the rows; others are not read."""

    @property
    def schema(self) -> pa.Schema:
        return _SCHEMA

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for table in joined(map(self._read, batches), 1 if self.lists else ROWS):
            yield _scattered(table, self.side, self.lists)

    def _read(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = {to: batch.column(name).cast(self._kind(to)) for to, name in self.columns.items()}
        if "item" not in columns:
            columns["item"] = pa.repeat(pa.scalar(0, pa.int64()), batch.num_rows)
        return pa.RecordBatch.from_pydict(columns)

    def _kind(self, to: str) -> pa.DataType:
        kind = {"user": pa.int64(), "item": pa.int64(), "label": pa.string()}.get(to, pa.float64())
        return pa.list_(kind) if self.lists and to not in ("user", "label") else kind


def _scattered(table: pa.Table, side: int, lists: bool) -> pa.RecordBatch:
    """One row for each bucket and label."""
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
    return _batch(full % BUCKETS, side, [names[label] for label in full // BUCKETS], bounds, arrays)


def _batch(
    bucket: I64, side: int, labels: list[str | None], bounds: I64, arrays: dict[str, tuple[NDArray[Any], I64]]
) -> pa.RecordBatch:
    """One row for each bucket.

    bounds  (b + 1,) where the rows of each bucket begin
    arrays  by name: the values of all buckets, one after the other, and where those of each bucket begin
    """
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


class BucketRows(NamedTuple):
    """The rows of a side and label."""

    user: I64
    """(n,)"""
    lengths: I64 | None
    """(n,) of lists; None: a row is one item."""
    item: I64
    """(m,), m = n where a row is one item."""
    data: F64 | None
    """(m,) a place, a score or a gain, as the side has it."""
    auc_share: F64 | None
    """(m,) the share of irrelevant candidates that the item scores above."""


BucketTable: TypeAlias = dict[tuple[int, str | None], BucketRows]
"""Rows by side and label."""


def whole_users(batches: Iterable[pa.RecordBatch]) -> Iterator[BucketTable]:
    """All rows of some users, about ROWS at a time, from buckets that come one after the other."""
    for table in _whole_buckets(batches):
        cells = {name: table[name].combine_chunks() for name in _ARRAYS}
        rows_of: dict[tuple[int, str | None], list[int]] = {}
        for row, key in enumerate(zip(table["side"].to_pylist(), table["label"].to_pylist(), strict=True)):
            rows_of.setdefault(key, []).append(row)
        yield {key: _rows(cells, rows, table["n"].to_numpy()) for key, rows in rows_of.items()}


def _rows(cells: dict[str, pa.BinaryArray], rows: list[int], n: I64) -> BucketRows:
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
    data, auc_share = (array(name, sizes) if cells[name][rows[0]].is_valid else None for name in _DATA)
    return BucketRows(user, lengths, array("items", sizes), data, auc_share)


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
