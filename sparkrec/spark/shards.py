"""Writing the examples of training: `training.shards` says how they lie."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import storage
from sparkrec.shards import SCHEMA, entry

_WRITTEN = "shard int, rows long, users long, bytes long, sha256 string"
_COUNTS = pa.schema([("count", pa.int64())])


def write_shards(examples: DataFrame, folder: str, *, n_items: int, groups: int, of_group: int, seed: int) -> None:
    """Write `examples` (user, item, value, confidence), whose items are in [0, n_items), unless they are there.

    A pair that comes more than once is one example: its confidences add up, its values are averaged. A user's shard
    follows from the user and the seed alone, so that two sets of examples of one seed lie alike.
    """
    if storage.read_json(f"{folder}/manifest.json") is not None:
        return
    n = groups * of_group
    once = examples.groupBy("user", "item").agg(
        F.avg("value").cast("float").alias("value"), F.sum("confidence").cast("float").alias("confidence")
    )
    placed = once.select(
        F.pmod(F.xxhash64(F.lit(seed), "user"), F.lit(n)).cast("int").alias("shard"),
        F.col("user").cast("long").alias("user"),
        F.col("item").cast("int").alias("item"),
        "value",
        "confidence",
    )
    written = placed.repartition(n, "shard").sortWithinPartitions("shard", "user", "item")
    rows = {row.shard: row for row in written.mapInArrow(_writer(folder), _WRITTEN).collect()}
    empty = _parquet(SCHEMA.empty_table())
    shards: list[dict[str, Any]] = []
    for shard in range(n):
        if shard in rows:
            row = rows[shard].asDict()
            shards.append({"file": _name(shard), **{key: row[key] for key in ("rows", "users", "bytes", "sha256")}})
        else:
            storage.write(f"{folder}/{_name(shard)}", empty)
            shards.append({**entry(_name(shard), empty, 0), "users": 0})
    counts = np.zeros(n_items, np.int64)
    for row in once.groupBy("item").count().toArrow().to_batches():
        counts[row["item"].to_numpy()] = row["count"].to_numpy()
    data = _parquet(pa.table({"count": counts}, _COUNTS))
    storage.write(f"{folder}/items.parquet", data)
    manifest = {
        "columns": SCHEMA.names,
        "seed": seed,
        "items": n_items,
        "groups": groups,
        "shards": shards,
        "item_counts": entry("items.parquet", data, n_items),
    }
    storage.write_json(f"{folder}/manifest.json", manifest)


def _writer(folder: str) -> Any:
    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Rows come sorted by shard: each is written when the next one begins."""
        held: list[pa.RecordBatch] = []
        for batch in batches:
            shard = batch.column("shard").to_numpy()
            cuts = [0, *(np.flatnonzero(np.diff(shard)) + 1).tolist(), len(shard)]
            for first, stop in pairwise(cuts):
                if held and first < stop and held[0].column("shard")[0].as_py() != shard[first]:
                    yield _flush(folder, held)
                    held = []
                if first < stop:
                    held.append(batch.slice(first, stop - first))
        if held:
            yield _flush(folder, held)

    return write


def _flush(folder: str, held: list[pa.RecordBatch]) -> pa.RecordBatch:
    table = pa.Table.from_batches(held)
    shard = table["shard"][0].as_py()
    examples = table.drop_columns(["shard"]).cast(SCHEMA)
    data = _parquet(examples)
    storage.write(f"{folder}/{_name(shard)}", data)
    said = entry(_name(shard), data, len(examples))
    users = len(examples["user"].unique())
    return pa.RecordBatch.from_pylist(
        [{"shard": shard, "rows": said["rows"], "users": users, "bytes": said["bytes"], "sha256": said["sha256"]}],
        pa.schema([("shard", pa.int32()), ("rows", pa.int64()), ("users", pa.int64()), ("bytes", pa.int64()),
                   ("sha256", pa.string())]),
    )  # fmt: skip


def _name(shard: int) -> str:
    return f"shard-{shard:05}.parquet"


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()
