"""Writing the examples of training: `training.shards` says how they lie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import storage
from sparkrec.fields import FieldSchema
from sparkrec.shards import SCHEMA, SEQUENCES, WITH_FEATURES, entry
from sparkrec.spark.arrow.packed_rows import schema_of
from sparkrec.spark.runner import RowFunction, map_rows

_WRITTEN = schema_of(shard=pa.int32(), rows=pa.int64(), users=pa.int64(), bytes=pa.int64(), sha256=pa.string())
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
    """(user, place, items array<int>), those of a user ascending in `place`; none is empty."""
    length: int
    """Events that a model sees."""
    targets: int | None = None
    """At the end of a window; None: each event is one."""


def write_shards(
    examples: DataFrame,
    folder: str,
    *,
    n_items: int,
    groups: int,
    of_group: int,
    seed: int,
    known: FeatureShards | None = None,
    ordered: SequenceShards | None = None,
) -> None:
    """Write `examples` (user, item, value, confidence), whose items are in [0, n_items), unless they are there.

    A pair that comes more than once is one example: its confidences add up, its values are averaged. But examples with
    features (timestamp, rows, weights) are all kept: they differ in their contexts. A user's shard follows from the
    user and the seed alone, so that two sets of examples of one seed lie alike.

    ordered  sequences of users who have examples
    """
    if storage.read_json(f"{folder}/manifest.json") is not None:
        return
    n = groups * of_group
    once = examples
    if known is None:
        once = examples.groupBy("user", "item").agg(
            F.avg("value").alias("value"), F.sum("confidence").alias("confidence")
        )
    shard_of = F.pmod(F.xxhash64(F.lit(seed), F.col("user").cast("long")), F.lit(n)).cast("int").alias("shard")
    placed = once.select(
        shard_of,
        F.col("user").cast("long").alias("user"),
        F.col("item").cast("int").alias("item"),
        F.col("value").cast("float").alias("value"),
        F.col("confidence").cast("float").alias("confidence"),
        *([F.coalesce(F.unix_micros("timestamp"), F.lit(0)).alias("timestamp")] if known else []),
        *([F.col("rows"), F.col("weights")] if known else []),
    )
    schema = WITH_FEATURES if known else SCHEMA
    # all columns: the order of examples is that of the file whatever the partitioning
    shards = _files(placed, placed.columns, folder, "shard", schema, n)
    until = int(once.agg(F.max(F.unix_micros("timestamp"))).collect()[0][0] or 0) if known else 0
    counts = np.zeros(n_items, np.int64)
    for row in once.groupBy("item").count().toArrow().to_batches():
        counts[row["item"].to_numpy()] = row["count"].to_numpy()
    data = storage.parquet(pa.table({"count": counts}, _COUNTS))
    storage.write(f"{folder}/items.parquet", data)
    manifest = {
        "columns": schema.names,
        "seed": seed,
        "items": n_items,
        "groups": groups,
        "shards": shards,
        "item_counts": entry("items.parquet", data, n_items),
    }
    if ordered is not None:
        rows = ordered.sequences.select(shard_of, F.col("user").cast("long").alias("user"), "place", "items")
        manifest["sequences"] = _files(rows, ["shard", "user", "place"], folder, "sequences", SEQUENCES, n)
        manifest["events"] = int(rows.agg(F.sum(F.size("items"))).collect()[0][0] or 0)
        manifest |= {"length": ordered.length, "targets": ordered.targets}
    if known:
        data = storage.parquet(known.items)
        storage.write(f"{folder}/item_features.parquet", data)
        manifest["item_features"] = entry("item_features.parquet", data, len(known.items))
        manifest |= {"layout": known.layout.to_json(), "until": until}
    storage.write_json(f"{folder}/manifest.json", manifest)


def _files(
    rows: DataFrame, order: list[str], folder: str, kind: str, schema: pa.Schema, n: int
) -> list[dict[str, Any]]:
    """Write the rows of each of n shards, sorted, as one file; their entries in the manifest."""
    sorted_rows = rows.repartition(n, "shard").sortWithinPartitions(*order)
    task = RowFunction(_WRITTEN, _writer(folder, kind, schema))
    written = {row.shard: row for row in map_rows(sorted_rows, task).collect()}
    empty = storage.parquet(schema.empty_table())
    files: list[dict[str, Any]] = []
    for shard in range(n):
        name = _name(kind, shard)
        if shard in written:
            row = written[shard].asDict()
            files.append({"file": name, **{key: row[key] for key in ("rows", "users", "bytes", "sha256")}})
        else:
            storage.write(f"{folder}/{name}", empty)
            files.append({**entry(name, empty, 0), "users": 0})
    return files


def _writer(folder: str, kind: str, schema: pa.Schema) -> Any:
    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Rows come sorted by shard: each is written when the next one begins."""
        held: list[pa.RecordBatch] = []
        for batch in batches:
            shard = batch.column("shard").to_numpy()
            cuts = [0, *(np.flatnonzero(np.diff(shard)) + 1).tolist(), len(shard)]
            for first, stop in pairwise(cuts):
                if held and first < stop and held[0].column("shard")[0].as_py() != shard[first]:
                    yield _flush(folder, kind, held, schema)
                    held = []
                if first < stop:
                    held.append(batch.slice(first, stop - first))
        if held:
            yield _flush(folder, kind, held, schema)

    return write


def _flush(folder: str, kind: str, held: list[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    table = pa.Table.from_batches(held)
    shard = table["shard"][0].as_py()
    examples = table.select(schema.names).cast(schema)
    data = storage.parquet(examples)
    storage.write(f"{folder}/{_name(kind, shard)}", data)
    said = entry(_name(kind, shard), data, len(examples))
    users = len(examples["user"].unique())
    return pa.RecordBatch.from_pylist(
        [{"shard": shard, "rows": said["rows"], "users": users, "bytes": said["bytes"], "sha256": said["sha256"]}],
        _WRITTEN,
    )


def _name(kind: str, shard: int) -> str:
    return f"{kind}-{shard:05}.parquet"
