"""Examples on disk, cut by user: what Spark writes and a process reads.

A folder of plain Parquet files, (user int64, item int32, value float, confidence float) sorted by user and item, with
all rows of a user in one file, and a manifest, written last. An epoch goes over the groups, one after the other;
process r of P reads the shards r, r + P, ... of each group.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sparkrec import storage
from sparkrec.errors import InputError
from sparkrec.kernels.arrays import F32, I32, I64
from sparkrec.kernels.negatives import Positives

SCHEMA = pa.schema([("user", pa.int64()), ("item", pa.int32()), ("value", pa.float32()), ("confidence", pa.float32())])


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

    @cached_property
    def rows(self) -> I64:
        """Position in `users` of each example."""
        return np.repeat(np.arange(len(self.users)), np.diff(self.indptr))


@dataclass(frozen=True)
class Shards:
    """The manifest of a folder."""

    folder: str
    manifest: dict[str, Any]

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
        table = self._read(self.manifest["shards"][number], SCHEMA)
        user = table["user"].to_numpy()
        users, start = np.unique(user, return_index=True)
        if len(user) and (np.diff(user) < 0).any():
            raise InputError(
                f"shard {number} in {self.folder}: its users do not ascend. Remove the folder and run again."
            )
        indptr = np.append(start, len(user)).astype(np.int64)
        items, values, confidence = (table[name].to_numpy() for name in ("item", "value", "confidence"))
        positives = Positives.of((indptr, items), len(users), self.n_items)
        return Shard(number, users, indptr, items, values, confidence, positives)

    def _read(self, entry: dict[str, Any], schema: pa.Schema) -> pa.Table:
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


def entry(file: str, data: bytes, rows: int) -> dict[str, Any]:
    """What the manifest says of a file."""
    return {"file": file, "rows": rows, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
