"""Examples cut by user: what Spark writes and a process reads.

A folder of plain Parquet files, (user int64, item int32, value float, confidence float) sorted by user and item, with
all rows of a user in one file, and a manifest, written last. Examples with features have (timestamp int64, rows
binary, weights binary) too, and the manifest names their fields. An epoch goes over the groups, one after the other;
process r of P reads the shards r, r + P, ... of each group. What is made where it is read need not become files: it
stays in memory as tables of the same names and columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sparkrec import storage
from sparkrec.errors import InputError
from sparkrec.fields import FieldSchema, SparseFeatures
from sparkrec.kernels.arrays import F32, I32, I64
from sparkrec.kernels.csr import latest
from sparkrec.kernels.gradients.negatives import Positives
from sparkrec.kernels.ragged import rows_of, starts_of, taken

SCHEMA = pa.schema([("user", pa.int64()), ("item", pa.int32()), ("value", pa.float32()), ("confidence", pa.float32())])
WITH_FEATURES = pa.schema([*SCHEMA, ("timestamp", pa.int64()), ("rows", pa.binary()), ("weights", pa.binary())])
"""`timestamp` is in microseconds; rows and weights are entries of `sparkrec.fields`."""
ITEM_FEATURES = pa.schema(
    [
        ("item", pa.int32()),
        ("since", pa.int64()),
        ("rows", pa.binary()),
        ("weights", pa.binary()),
    ]
)
"""What is known of an item from a point in time on; ascending, with one for all times of each item."""
SEQUENCES = pa.schema([("user", pa.int64()), ("items", pa.list_(pa.int32()))])
"""Sequences of items of a shard's users, in files beside those of the examples: to train on, or who asks."""
ALWAYS = -(2**63)
"""`since` of what holds before anything else."""


@dataclass(frozen=True)
class Sequences:
    """Items in the order of time."""

    rows: I64
    """(s,) position of the user of each in `users` of the shard, ascending."""
    start: I64
    """(s + 1,) where each begins in `items`."""
    items: I32

    @property
    def lengths(self) -> I64:
        return np.diff(self.start)

    def take(self, at: I64) -> Sequences:
        """Some of them, in that order."""
        start, places = taken(self.start, at)
        return Sequences(self.rows[at], start, self.items[places])


@dataclass(frozen=True)
class Shard:
    """Examples of some users."""

    number: int
    users: I64
    """(u,) their ids, ascending."""
    indptr: I64
    """Their examples, in the order of `items`."""
    items: I32
    values: F32
    confidence: F32
    positives: Positives
    timestamps: I64 | None = None
    """(n,) of each example, where there are features."""
    entries: SparseFeatures | None = None
    """(n,) what is known of who asks, in each example."""
    sequences: Sequences | None = None
    """Of these users, where there are such."""

    @cached_property
    def rows(self) -> I64:
        """Position in `users` of each example."""
        return rows_of(self.indptr)

    def without(self, users: NDArray[np.bool_]) -> Shard:
        """It without the examples and sequences of some of its users, (u,) True; they stay in `users`, and what they
        have in `positives`."""
        kept = np.flatnonzero(~users[self.rows])
        lengths = np.where(users, 0, np.diff(self.indptr))
        sequences = self.sequences
        return replace(
            self,
            indptr=starts_of(lengths),
            items=self.items[kept],
            values=self.values[kept],
            confidence=self.confidence[kept],
            timestamps=None if self.timestamps is None else self.timestamps[kept],
            entries=None if self.entries is None else self.entries.take(kept),
            sequences=sequences and sequences.take(np.flatnonzero(~users[sequences.rows])),
        )


@dataclass(frozen=True)
class Shards:
    """What a manifest tells of, in the files of a folder or in memory."""

    folder: str
    manifest: dict[str, Any]
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    """Those that are in memory, by the names that the manifest has for them."""

    @classmethod
    def open(cls, folder: str) -> Shards:
        """Raises InputError where there is no manifest."""
        manifest = storage.read_json(f"{folder}/manifest.json")
        if manifest is None:
            raise InputError(f"no shards in {folder}: expected a manifest.json. Run again: it writes them anew.")
        return cls(folder, manifest)

    @property
    def n_items(self) -> int:
        return int(self.manifest["items"])

    @property
    def groups(self) -> int:
        return int(self.manifest["groups"])

    @property
    def of_group(self) -> int:
        """Shards in each group."""
        return len(self.manifest["shards"]) // self.groups

    def numbers(self, group: int) -> range:
        return range(group * self.of_group, (group + 1) * self.of_group)

    def rows(self, number: int) -> int:
        return int(self.manifest["shards"][number]["rows"])

    def mine(self, group: int, process_rank: int, size: int) -> list[int]:
        """The shards of a group that a process reads. Raises InputError where there is not one for each process."""
        if self.of_group < size:
            raise InputError(
                f"shards: found {self.of_group} a group, expected one or more for each of {size} processes"
            )
        return list(self.numbers(group))[process_rank::size]

    @cached_property
    def item_counts(self) -> I64:
        """(n_items,) examples of each."""
        table = self._read(self.manifest["item_counts"], pa.schema([("count", pa.int64())]))
        return np.asarray(table["count"].to_numpy())

    def read(self, number: int) -> Shard:
        """Raises InputError for a shard that is missing, cut off or not what was written."""
        table = self._read(self.manifest["shards"][number], SCHEMA if self.layout is None else WITH_FEATURES)
        user = table["user"].to_numpy()
        users, start = np.unique(user, return_index=True)
        if len(user) and (np.diff(user) < 0).any():
            raise InputError(
                f"shard {number} in {self.folder}: its users do not ascend. Remove the folder and run again."
            )
        indptr = np.append(start, len(user)).astype(np.int64)
        items, values, confidence = (table[name].to_numpy() for name in ("item", "value", "confidence"))
        positives = Positives.of(_once(indptr, items), len(users), self.n_items)
        shard = Shard(number, users, indptr, items, values, confidence, positives)
        if "sequences" in self.manifest:
            shard = replace(shard, sequences=self._sequences(number, users))
        if self.layout is None:
            return shard
        entries = SparseFeatures.of_arrow(table["rows"], table["weights"])
        return replace(shard, timestamps=table["timestamp"].to_numpy(), entries=entries)

    def _sequences(self, number: int, users: I64) -> Sequences:
        table = self._read(self.manifest["sequences"][number], SEQUENCES)
        items = table["items"].combine_chunks()
        start = items.offsets.to_numpy().astype(np.int64)
        rows = np.searchsorted(users, table["user"].to_numpy())
        return Sequences(rows, start - start[0], items.flatten().to_numpy(zero_copy_only=False))

    def sequences(self, number: int) -> int:
        """How many a shard has."""
        return int(self.manifest["sequences"][number]["rows"])

    @property
    def length(self) -> int:
        """Events that a model of sequences sees."""
        return int(self.manifest.get("length", 1))

    @property
    def targets(self) -> int | None:
        """At the end of a window; None: each event of a sequence is one."""
        found: int | None = self.manifest.get("targets")
        return found

    @property
    def mean_length(self) -> float:
        """Of all sequences."""
        return int(self.manifest["events"]) / max(sum(map(self.sequences, range(len(self.manifest["sequences"])))), 1)

    @cached_property
    def layout(self) -> FieldSchema | None:
        """Fields of the features; None: there are none."""
        said = self.manifest.get("layout")
        return None if said is None else FieldSchema.from_json(said)

    @cached_property
    def item_features(self) -> ItemFeatures:
        """What is known of the items, where there are features."""
        return ItemFeatures.of(self._read(self.manifest["item_features"], ITEM_FEATURES), self.n_items)

    def _read(self, entry: dict[str, Any], schema: pa.Schema) -> pa.Table:
        if (held := self.tables.get(entry["file"])) is not None:
            return held
        path = f"{self.folder}/{entry['file']}"
        try:
            data = storage.read(path)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error}. Remove the folder and run again.") from None
        found = hashlib.sha256(data).hexdigest()
        if found != entry["sha256"]:
            raise InputError(
                f"{path} has {len(data)} bytes and checksum {found[:12]}, expected {entry['bytes']} and "
                f"{entry['sha256'][:12]}: it was cut off or changed. Remove the folder and run again."
            )
        table = pq.read_table(pa.BufferReader(data)).combine_chunks()
        if not table.schema.equals(schema):
            raise InputError(f"{path} has columns {table.schema.names}, expected {schema.names}")
        return table


@dataclass(frozen=True)
class ItemFeatures:
    """Versions of what is known of each item."""

    start: I64
    """(n_items + 1,) where those of each item begin, the one for all times first."""
    since: I64
    """(v,) from when on each holds."""
    entries: SparseFeatures

    @classmethod
    def of(cls, table: pa.Table, n_items: int) -> ItemFeatures:
        """Of a table as ITEM_FEATURES."""
        start = np.searchsorted(table["item"].to_numpy(), np.arange(n_items + 1))
        entries = SparseFeatures.of_arrow(table["rows"], table["weights"])
        return cls(start, table["since"].to_numpy(), entries)

    @classmethod
    def none(cls, n_items: int) -> ItemFeatures:
        """Where nothing is known."""
        return cls(np.arange(n_items + 1), np.full(n_items, ALWAYS), SparseFeatures.none(n_items))

    def at(self, items: I64, timestamps: I64) -> SparseFeatures:
        """(n,) of each item at a time."""
        version = self.start[items]
        if len(self.since) > len(self.start) - 1:
            version = latest(self.start, self.since, items, timestamps)
        return self.entries.take(version)


def _once(indptr: I64, items: I32) -> tuple[I64, I32]:
    """Lists of ascending items without those that come again."""
    again = np.zeros(len(items) + 1, bool)
    again[1:-1] = items[1:] == items[:-1]
    again[indptr] = False  # the first of a list
    if not again.any():
        return indptr, items
    before = starts_of(again[:-1])
    return indptr - before[indptr], items[~again[:-1]]


class Store(Protocol):
    """Where tables of shards are kept."""

    def write(self, name: str, rows: pa.Table) -> dict[str, Any]:
        """Keep a table; what the manifest says of it."""


@dataclass(frozen=True)
class Folder:
    """Tables in files, which any process reads."""

    path: str

    def write(self, name: str, rows: pa.Table) -> dict[str, Any]:
        data = storage.parquet(rows.combine_chunks())
        storage.write(f"{self.path}/{name}", data)
        return {"file": name, "rows": len(rows), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@dataclass(frozen=True)
class Memory:
    """Tables in the memory of this process."""

    tables: dict[str, pa.Table] = field(default_factory=dict)

    def write(self, name: str, rows: pa.Table) -> dict[str, Any]:
        self.tables[name] = rows.combine_chunks()
        return {"file": name, "rows": len(rows)}
