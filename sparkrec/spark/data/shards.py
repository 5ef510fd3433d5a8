"""Writing the examples of training: `sparkrec.shards` says how they lie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame

from sparkrec import storage
from sparkrec.fields import FieldSchema
from sparkrec.kernels.arrays import F64, I64
from sparkrec.kernels.csr import located
from sparkrec.kernels.hashing import spark_hash
from sparkrec.shards import SCHEMA, SEQUENCES, WITH_FEATURES, Folder, Memory, Shards, Store
from sparkrec.spark.arrow.packed_rows import schema_of
from sparkrec.spark.data.sequences import EncodeItems, micros
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.platform.few import narrowed
from sparkrec.spark.runner import Rows

_FILE = {
    "shard": pa.int32(),
    "file": pa.string(),
    "rows": pa.int64(),
    "users": pa.int64(),
    "bytes": pa.int64(),
    "sha256": pa.string(),
}
_EXAMPLES_FILE = schema_of(**_FILE, until=pa.int64(), items=pa.list_(pa.int32()), counts=pa.list_(pa.int64()))
_SEQUENCES_FILE = schema_of(**_FILE, events=pa.int64())
_PLACED = schema_of(shard=pa.int32(), user=pa.int64(), place=pa.int64(), items=pa.list_(pa.int32()))
_COUNTS = pa.schema([("count", pa.int64())])


@dataclass(frozen=True)
class FeatureShards:
    """Features that the examples come with."""

    layout: FieldSchema
    items: pa.Table
    """As ITEM_FEATURES."""


@dataclass(frozen=True)
class SequenceShards:
    """Sequences that come with the examples."""

    sequences: DataFrame
    """(user, place, items array<long>), those of a user ascending in `place`; or without it, one for each user."""
    length: int
    """Events that a model sees."""
    targets: int | None = None
    """At the end of a window; None: each event is one."""


def write_shards(
    examples: DataFrame,
    folder: str,
    *,
    items: I64,
    groups: int,
    of_group: int,
    seed: int,
    known: FeatureShards | None = None,
    ordered: SequenceShards | None = None,
    in_memory: bool = False,
) -> Shards:
    """Write `examples` (user, item, value, confidence), unless they are there.

    A pair that comes more than once is one example: its confidences add up, its values are averaged. But examples with
    features (timestamp, rows, weights) are all kept: they differ in their contexts. A user's shard follows from the
    user and the seed alone, so that two sets of examples of one seed lie alike.

    items      ids, ascending: an item becomes its place among them, and one that is not there is left out
    ordered    sequences of users who have examples; one without known items is left out
    in_memory  whether this process alone will read them: then those of few rows stay here, and there is no folder
    """
    if storage.read_json(f"{folder}/manifest.json") is not None:
        return Shards.open(folder)
    memory = Memory()
    shards = _Shards(Folder(folder), memory if in_memory else None, items, groups * of_group, seed)
    columns = [*SCHEMA.names, *(WITH_FEATURES.names[len(SCHEMA) :] if known else [])]
    files = carry_out("shards", partial(shards.examples, known is not None), narrowed(examples, *columns))
    counts = np.zeros(len(items), np.int64)
    for file in files:  # a shard without rows has empty lists, which numpy would take for floats
        counts[np.array(file.pop("items"), np.int64)] += np.array(file.pop("counts"), np.int64)
    until = max(file.pop("until") for file in files)
    beside: Store = memory if memory.tables else Folder(folder)
    manifest = {
        "columns": (WITH_FEATURES if known else SCHEMA).names,
        "seed": seed,
        "items": len(items),
        "groups": groups,
        "shards": files,
        "item_counts": beside.write("items.parquet", pa.table({"count": counts}, _COUNTS)),
    }
    if ordered is not None:
        names = [name for name in ("user", "place", "items") if name in ordered.sequences.columns]
        told = narrowed(ordered.sequences, *names)
        manifest["sequences"] = carry_out("shards", shards.sequences, told)
        manifest["events"] = sum(file.pop("events") for file in manifest["sequences"])
        manifest |= {"length": ordered.length, "targets": ordered.targets}
    if known:
        manifest["item_features"] = beside.write("item_features.parquet", known.items)
        manifest |= {"layout": known.layout.to_json(), "until": until}
    if not memory.tables:
        storage.write_json(f"{folder}/manifest.json", manifest)
    return Shards(folder, manifest, memory.tables)


@dataclass(frozen=True)
class _Shards:
    folder: Folder
    memory: Memory | None
    items: I64
    n: int
    seed: int

    def examples(self, with_features: bool, rows: Rows) -> list[dict[str, Any]]:
        """Write them; what the manifest says of each file, and what else is known of it."""
        placed = rows.map_rows(PlaceExamples(self.items, self.n, self.seed, with_features))
        task = WriteExamples(self._store(rows), with_features)
        empty = (WITH_FEATURES if with_features else SCHEMA).empty_table()
        return self._written(placed, task, empty, {"until": 0, "items": [], "counts": []})

    def sequences(self, rows: Rows) -> list[dict[str, Any]]:
        """As `examples`."""
        encoded = rows.map_rows(EncodeItems.of(rows, self.items)).map_rows(PlaceSequences(self.n, self.seed))
        task = WriteSequences(self._store(rows))
        return self._written(encoded, task, SEQUENCES.empty_table(), {"events": 0})

    def _store(self, rows: Rows) -> Store:
        return self.memory if self.memory is not None and rows.in_this_process else self.folder

    def _written(
        self, rows: Rows, task: WriteExamples | WriteSequences, empty: pa.Table, of_none: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Of each shard, whose rows are one file; shards without rows have one, too."""
        written = {row["shard"]: row for row in rows.map_groups("shard", task, self.n).table().to_pylist()}
        for shard in range(self.n):
            if shard not in written:
                written[shard] = {"shard": shard, **_write(task, shard, empty), **of_none}
        return [{key: value for key, value in written[shard].items() if key != "shard"} for shard in range(self.n)]


@dataclass(frozen=True)
class PlaceExamples:
    """Examples, each with its shard and the place of its item among ascending `items`."""

    items: I64
    n: int
    seed: int
    with_features: bool

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([("shard", pa.int32()), *(WITH_FEATURES if self.with_features else SCHEMA)])

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            at, there = located(batch.column("item").to_numpy().astype(np.int64, copy=False), self.items)
            user = batch.column("user").cast(pa.int64())
            columns = [_shard(user, self.n, self.seed), user, pa.array(at.astype(np.int32))]
            columns += [batch.column(name).cast(pa.float32()) for name in ("value", "confidence")]
            if self.with_features:
                columns.append(micros(batch.column("timestamp")).fill_null(0))
                columns += [batch.column(name) for name in ("rows", "weights")]
            placed = pa.RecordBatch.from_arrays(columns, schema=self.schema)
            yield placed if there.all() else placed.filter(pa.array(there))


@dataclass(frozen=True)
class PlaceSequences:
    """Sequences (user, place, items list<int32>), each with its shard."""

    n: int
    seed: int
    schema: pa.Schema = _PLACED

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            user = batch.column("user").cast(pa.int64())
            place = batch.column("place") if "place" in batch.schema.names else pa.array(np.zeros(len(user), np.int64))
            columns = [user, place.cast(pa.int64()), batch.column("items")]
            yield pa.RecordBatch.from_arrays([_shard(user, self.n, self.seed), *columns], schema=self.schema)


@dataclass(frozen=True)
class WriteExamples:
    """Writes the examples of a shard, sorted by all that they are: their order is the same however they come."""

    store: Store
    with_features: bool
    kind: str = "shard"
    schema: pa.Schema = _EXAMPLES_FILE

    def __call__(self, group: pa.Table) -> pa.Table:
        names = WITH_FEATURES.names if self.with_features else SCHEMA.names
        if self.with_features:
            examples = group.select(names).sort_by([(name, "ascending") for name in names])
        else:
            examples = _once(*(group[name].to_numpy() for name in names))
        items, counts = np.unique(examples["item"].to_numpy(), return_counts=True)
        until = int(examples["timestamp"].to_numpy().max()) if self.with_features else 0
        told = _write(self, group["shard"][0].as_py(), examples)
        facts = {**told, "until": until, "items": items, "counts": counts}
        return pa.Table.from_pylist([{"shard": group["shard"][0].as_py(), **facts}], self.schema)


@dataclass(frozen=True)
class WriteSequences:
    """Writes the sequences of a shard, users ascending, each user's in the order of time."""

    store: Store
    kind: str = "sequences"
    schema: pa.Schema = _SEQUENCES_FILE

    def __call__(self, group: pa.Table) -> pa.Table:
        rows = group.sort_by([("user", "ascending"), ("place", "ascending")]).select(SEQUENCES.names)
        told = _write(self, group["shard"][0].as_py(), rows)
        events = len(rows["items"].combine_chunks().flatten())
        return pa.Table.from_pylist([{"shard": group["shard"][0].as_py(), **told, "events": events}], self.schema)


def _shard(user: pa.Array, n: int, seed: int) -> pa.Array:
    return pa.array((spark_hash(seed, user.to_numpy()) % n).astype(np.int32))


def _once(user: I64, item: I64, value: F64, confidence: F64) -> pa.Table:
    """Examples as SCHEMA, each pair once."""
    order = np.lexsort((confidence, value, item, user))  # by all: what is added up does not depend on how they came
    user, item, value, confidence = user[order], item[order], value[order], confidence[order]
    first = np.ones(len(user), bool)
    first[1:] = (user[1:] != user[:-1]) | (item[1:] != item[:-1])
    if not first.all():
        pair = np.cumsum(first) - 1
        value = np.bincount(pair, value) / np.bincount(pair)
        confidence = np.bincount(pair, confidence).astype(np.float64, copy=False)
        user, item = user[first], item[first]
    return pa.table([user, item, value.astype(np.float32), confidence.astype(np.float32)], schema=SCHEMA)


def _write(task: WriteExamples | WriteSequences, shard: int, rows: pa.Table) -> dict[str, Any]:
    """Write a shard; what the manifest says of its file."""
    told = task.store.write(f"{task.kind}-{shard:05}.parquet", rows)
    return {**told, "users": len(rows["user"].unique())}
