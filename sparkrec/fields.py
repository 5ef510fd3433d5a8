"""Features of users, items and contexts as sparse vectors: fields, their features, and how a value becomes one.

A field is a column; a feature is a value of it, with a row in the table of a model. Of each field:

    kind                        rows
    categorical, multi          [null, unknown, category, category ...]
    the same, hashed            [null, bucket, bucket ...]
    numeric                     [null, the number]
    numeric in buckets, date    [null, bucket, bucket ...]

A row of data has entries (row, weight): one for each of its values, of weight 1, but for numbers (the scaled number)
and means over n categories (1 / n). So training and scoring see the same vector for the same value, whoever asks.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sparkrec.kernels.arrays import F32, F64, I32, I64
from sparkrec.kernels.ragged import joined_starts, spans, starts_of, taken

SIDES = ("user", "context", "item")
"""Order of the fields, and so of their rows."""

_FIELDS = pa.schema(
    [
        ("name", pa.string()),
        ("side", pa.string()),
        ("settings", pa.string()),
        ("type", pa.string()),
        ("first", pa.int64()),
        ("rows", pa.int64()),
        ("mean", pa.float64()),
        ("deviation", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("edges", pa.list_(pa.float64())),
    ]
)
_VOCABULARY = pa.schema([("field", pa.string()), ("category", pa.string()), ("row", pa.int64())])


class SparseFeatures(NamedTuple):
    """Sparse vectors, one after the other."""

    start: I64
    """(n + 1,) where each begins."""
    row: I32
    weight: F32

    def take(self, at: I64) -> SparseFeatures:
        """Those of some vectors, in that order."""
        start, where = taken(self.start, at)
        return SparseFeatures(start, self.row[where], self.weight[where])

    @classmethod
    def joined(cls, parts: Sequence[SparseFeatures]) -> SparseFeatures:
        """Those of all parts, one part after the other."""
        if len(parts) == 1:
            return parts[0]
        rows = np.concatenate([np.zeros(0, np.int32), *(part.row for part in parts)])
        weights = np.concatenate([np.zeros(0, np.float32), *(part.weight for part in parts)])
        return cls(joined_starts([part.start for part in parts]), rows, weights)

    @classmethod
    def none(cls, n: int) -> SparseFeatures:
        """n empty ones."""
        return cls(np.zeros(n + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))

    @classmethod
    def of_arrow(cls, rows: pa.Array | pa.ChunkedArray, weights: pa.Array | pa.ChunkedArray | None) -> SparseFeatures:
        """Of two columns of bytes: int32 rows and as many float32 weights; None: all are 1."""
        row, start = _numbers(rows, np.int32)
        weight = np.ones(len(row), np.float32) if weights is None else _numbers(weights, np.float32)[0]
        return cls(start, row, weight)

    def arrow(self) -> tuple[pa.BinaryArray, pa.BinaryArray]:
        """As two columns of bytes, which Spark hands over as they are; lists it would take apart."""
        offsets = pa.py_buffer((4 * self.start).astype(np.int32))
        n = len(self.start) - 1
        return tuple(
            pa.Array.from_buffers(pa.binary(), n, [None, offsets, pa.py_buffer(np.ascontiguousarray(values))])
            for values in (self.row, self.weight)
        )


def _numbers(column: pa.Array | pa.ChunkedArray, kind: type) -> tuple[NDArray[Any], I64]:
    """Numbers of 4 bytes, one row after the other, and where each row begins."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    values: list[NDArray[Any]] = [np.zeros(0, kind)]
    lengths = [np.zeros(0, np.int64)]
    for chunk in chunks:
        _, offsets, data = chunk.buffers()
        bounds = np.frombuffer(offsets, np.int32, len(chunk) + 1, 4 * chunk.offset).astype(np.int64)
        lengths.append(np.diff(bounds) // 4)
        if bounds[-1] > bounds[0]:
            values.append(np.frombuffer(data, kind, (bounds[-1] - bounds[0]) // 4, bounds[0]))
    whole = values[1] if len(values) == 2 else np.concatenate(values)
    return whole, starts_of(np.concatenate(lengths))


@dataclass(frozen=True)
class FieldSchema:
    """Names and numbers of rows of the fields of each side: what a model is built for."""

    user: tuple[tuple[str, int], ...] = ()
    context: tuple[tuple[str, int], ...] = ()
    item: tuple[tuple[str, int], ...] = ()

    @property
    def query(self) -> tuple[tuple[str, int], ...]:
        """Of who asks: of the user and the context."""
        return (*self.user, *self.context)

    @property
    def names(self) -> list[str]:
        """Of all fields a score depends on, in the order in which a model has them."""
        return ["user", *(name for name, _ in self.query), "item", *(name for name, _ in self.item)]

    @property
    def n_rows(self) -> int:
        """Of all fields but the ids."""
        return sum(rows for _, rows in (*self.query, *self.item))

    @cached_property
    def field_of(self) -> I64:
        """(n_rows,) which field of its side each row belongs to, those of a query counted together."""
        sides = (self.query, self.item)
        parts = [np.repeat(np.arange(len(side)), [rows for _, rows in side]) for side in sides if side]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def to_json(self) -> dict[str, list[list[Any]]]:
        return {side: [list(each) for each in getattr(self, side)] for side in SIDES}

    @classmethod
    def from_json(cls, said: dict[str, list[list[Any]]] | None) -> FieldSchema:
        return (
            cls(**{side: tuple((str(name), int(rows)) for name, rows in said[side]) for side in SIDES})
            if said
            else cls()
        )


@dataclass(frozen=True)
class FieldCode:
    """How the values of one field become rows."""

    name: str
    side: str
    settings: dict[str, Any]
    """Of the field, as plain values."""
    type: str
    """Of the column that it was made of."""
    first: int
    """Its first row: of null."""
    rows: int
    mean: float = 0.0
    deviation: float = 1.0
    low: float = -math.inf
    """Of a number: the smallest that train has. What is smaller counts as it."""
    high: float = math.inf
    """The greatest, likewise."""
    edges: tuple[float, ...] = ()
    """Between buckets."""
    categories: pa.Array | None = None
    """By row, after null and unknown; None: there is no vocabulary."""

    @property
    def kind(self) -> str:
        return str(self.settings["kind"])

    @property
    def weighs(self) -> bool:
        """Whether its entries have weights other than 1."""
        return self.kind == "multi" or (self.kind == "numeric" and self.settings["scale"] != "buckets")

    def encode(self, values: pa.Array) -> tuple[I64, I64, F64]:
        """Entries (lengths, row, weight) of plain values: strings, or what `plain` made of them."""
        if self.kind == "multi":
            return self._encode_lists(values)
        n = len(values)
        weight = np.ones(n)
        if self.kind == "numeric":
            number = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
            there = ~np.isnan(number)
            number = number.clip(self.low, self.high)
            place = np.where(there, 1, 0)
            if self.edges:
                place = np.where(there, 1 + np.searchsorted(self.edges, number, side="right"), 0)
            elif self.settings["scale"] != "buckets":
                if self.settings["scale"] == "log":
                    number = np.sign(number) * np.log1p(np.abs(number))
                scaled = (number - self.mean) / self.deviation
                weight = np.where(there, scaled, 1.0)
        else:
            place = self._place(values)
        return np.ones(n, np.int64), self.first + place, weight

    def rows_in(self, other: FieldCode | None) -> I64:
        """(rows,) as of `FieldCodes.rows_in`; None: the field is not there."""
        found = np.full(self.rows, -1)
        if other is None or (self.kind, self.type) != (other.kind, other.type):
            return found
        if self.categories is not None and other.categories is not None:
            known = pc.fill_null(pc.index_in(self.categories, value_set=other.categories), -1)
            place = known.to_numpy(zero_copy_only=False).astype(np.int64)
            found[:2] = other.first, other.first + 1  # null, unknown
            found[2:] = np.where(place < 0, -1, other.first + 2 + place)
        elif self.settings == other.settings and self.rows == other.rows:
            found[:] = other.first + np.arange(self.rows)
        return found

    def _place(self, values: pa.Array) -> I64:
        """0 of null; of a category its place, 1 of an unknown one; of a bucket its number from 1."""
        if self.categories is None:
            found: I64 = pc.fill_null(pc.add(values.cast(pa.int64()), 1), 0).to_numpy(zero_copy_only=False)
            return found
        known = pc.fill_null(pc.index_in(values, value_set=self.categories), -1).to_numpy(zero_copy_only=False)
        return np.where(values.is_null().to_numpy(zero_copy_only=False), 0, 2 + known.astype(np.int64))

    def _encode_lists(self, values: pa.Array) -> tuple[I64, I64, F64]:
        lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        place = self._place(values.flatten())
        empty = lengths == 0  # one entry, null
        where = starts_of(lengths)[:-1][empty]
        place = np.insert(place, where, 0)
        lengths = np.where(empty, 1, lengths)
        weight = np.ones(len(place))
        if self.settings["pooling"] == "mean":
            weight /= np.repeat(lengths, lengths)
        return lengths, self.first + place, weight


@dataclass(frozen=True)
class FieldCodes:
    """All fields of a dataset, in the order of their rows."""

    fields: tuple[FieldCode, ...]

    @property
    def layout(self) -> FieldSchema:
        return FieldSchema(*(tuple((each.name, each.rows) for each in self.of(side)) for side in SIDES))

    def of(self, *sides: str) -> list[FieldCode]:
        """Those of some sides."""
        return [each for each in self.fields if each.side in sides]

    @cached_property
    def digest(self) -> str:
        """Names what these codes are: rows of other ones mean something else."""
        fields, vocabulary = self.tables()
        said = json.dumps([fields.to_pylist(), vocabulary.to_pylist()], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def tables(self) -> tuple[pa.Table, pa.Table]:
        """As two tables: the fields, and the categories of those with a vocabulary."""
        fields, words = [], [_VOCABULARY.empty_table()]
        for each in self.fields:
            said = {name: getattr(each, name) for name in _FIELDS.names if name != "settings"}
            fields.append(said | {"settings": json.dumps(each.settings, sort_keys=True), "edges": list(each.edges)})
            if each.categories is not None:
                n = len(each.categories)
                columns = [[each.name] * n, each.categories, each.first + 2 + np.arange(n)]
                words.append(pa.table(dict(zip(_VOCABULARY.names, columns, strict=True)), _VOCABULARY))
        return pa.Table.from_pylist(fields, _FIELDS), pa.concat_tables(words)

    def rows_in(self, other: FieldCodes) -> I64:
        """(n,) of each row the one that is the same feature in other codes of the same fields, -1 where there is none:
        of a category that of its name, of all else that of its place, where the field has as many and means the same.
        """
        theirs = {(each.side, each.name): each for each in other.fields}
        parts = [each.rows_in(theirs.get((each.side, each.name))) for each in self.fields]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    @classmethod
    def of_tables(cls, fields: pa.Table, vocabulary: pa.Table) -> FieldCodes:
        made = []
        for each in fields.to_pylist():
            settings = json.loads(each.pop("settings"))
            edges = tuple(each.pop("edges") or ())
            words = vocabulary.filter(pc.equal(vocabulary["field"], each["name"])).sort_by("row")["category"]
            free = settings.get("hash_buckets") is not None or settings["kind"] in ("numeric", "date")
            made.append(
                FieldCode(**each, settings=settings, edges=edges, categories=None if free else words.combine_chunks())
            )
        return cls(tuple(made))


def encode(fields: Sequence[FieldCode], columns: Sequence[pa.Array]) -> SparseFeatures:
    """Entries of rows of data, field after field.

    columns  of plain values, one for each field
    """
    parts = [field.encode(column) for field, column in zip(fields, columns, strict=True)]
    if not parts:
        return SparseFeatures.none(0)
    total = np.sum([lengths for lengths, _, _ in parts], axis=0)
    start = starts_of(total)
    row, weight = np.empty(start[-1], np.int32), np.empty(start[-1], np.float32)
    at = start[:-1].copy()
    for lengths, rows, weights in parts:
        where = spans(at, lengths)[1]
        row[where], weight[where] = rows, weights
        at += lengths
    return SparseFeatures(start, row, weight)
