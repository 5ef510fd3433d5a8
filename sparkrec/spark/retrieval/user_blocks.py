"""Bringing the rows of users and their lists of items together, as blocks.

Every frame is cut into pieces, arrays of the users of a partition, and moves as that: a list of a hundred million pairs
is a few thousand rows to Spark, which never sorts, hashes or joins a pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import reduce

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame

from sparkrec.kernels.als.blocking import hashed, numbered
from sparkrec.kernels.arrays import I64
from sparkrec.kernels.csr import by_key, grouped
from sparkrec.spark.arrow.blocks import Arrays, Ragged, binary, packed, packed_columns, read_lists
from sparkrec.spark.arrow.packed_rows import ArrowRow, ddl, each_row, integers, joined, one_row, schema_of
from sparkrec.spark.platform.partitions import partition_keys

MOST_PARTITIONS = 4096
"""Into which a frame is cut: pieces of a million pairs stay longer than a few hundred."""
CHUNK_ROWS = 1 << 20

_PIECE = schema_of(
    partition=pa.int64(),
    of=pa.string(),
    n=pa.int64(),
    user=pa.binary(),
    item=pa.binary(),
    score=pa.binary(),
    index=pa.binary(),
    index_start=pa.binary(),
    value=pa.binary(),
    value_start=pa.binary(),
)
"""n users of a partition: `of` rows, with what the model has of them; or of a list, with an item (and score) each."""

_ROWS: Arrays = {"index": np.int32, "value": np.float32}


def user_blocks(
    rows: DataFrame,
    users: DataFrame | None,
    lists: Mapping[str, DataFrame],
    arrays: Arrays,
    partitions: int,
    max_rows: int,
    max_bytes: int,
) -> DataFrame:
    """Blocks, as of `pack`, of model rows (user, index, value) with the `arrays` of each user.

    users  (user) whose; None: all
    lists  (user, item) or (user, item, score) by name: items ascending and once in array `name`, scores in `name_score`
    An array without a list is empty. What lists say of others is left out.
    """
    keys = np.array(partition_keys(min(partitions, MOST_PARTITIONS)))
    asked = rows if users is None else rows.join(users, "user", "left_semi")
    frames = [asked.select("user", "index", "value").mapInArrow(_cut_rows(keys), ddl(_PIECE))]
    frames += [frame.mapInArrow(_cut_list(name, keys), ddl(_PIECE)) for name, frame in lists.items()]
    moved = reduce(DataFrame.union, frames).repartition(len(keys), "partition").groupBy("partition")
    wanted = {**_ROWS, **arrays}

    def assemble(table: pa.Table) -> pa.Table:
        batch = _assembled([*each_row(table.to_batches())], wanted)
        blocks = [*packed([batch] if batch.num_rows else [], "user", wanted, max_rows, max_bytes)]
        columns = packed_columns("user", wanted)
        return pa.Table.from_batches(
            blocks, pa.schema([(name.split()[0], pa.binary()) for name in columns.split(", ")])
        )

    return moved.applyInArrow(assemble, packed_columns("user", wanted))


def _cut_rows(keys: I64) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def cut(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            user = batch.column("user").to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
            start, order = _by_partition(user, len(keys))
            lists = {name: read_lists(batch.column(name), kind).take(order) for name, kind in _ROWS.items()}
            for key, first, stop in _pieces(keys, start):
                columns = {"user": integers(user[order[first:stop]])}
                for name, each in lists.items():
                    part = each.between(first, stop)
                    columns |= {name: binary(part.values), f"{name}_start": binary(part.start)}
                yield _piece(key, "rows", stop - first, **columns)

    return cut


def _cut_list(name: str, keys: I64) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def cut(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for table in joined(batches, CHUNK_ROWS):
            user, item = (table.column(each).to_numpy().astype(np.int64, copy=False) for each in ("user", "item"))
            score = table.column("score").to_numpy() if "score" in table.column_names else None
            start, order = _by_partition(user, len(keys))
            user, item = user[order], item[order]
            score = None if score is None else score[order].astype(np.float32, copy=False)
            for key, first, stop in _pieces(keys, start):
                columns = {"user": integers(user[first:stop]), "item": integers(item[first:stop])}
                if score is not None:
                    columns["score"] = binary(score[first:stop])
                yield _piece(key, name, stop - first, **columns)

    return cut


def _by_partition(user: I64, n: int) -> tuple[I64, I64]:
    """Where the users of each of n partitions start, and their order by partition, as they came within."""
    return by_key((hashed(user) % n).astype(np.int32), n)


def _pieces(keys: I64, start: I64) -> Iterator[tuple[int, int, int]]:
    for key, first, stop in zip(keys.tolist(), start[:-1].tolist(), start[1:].tolist(), strict=True):
        if first < stop:
            yield key, first, stop


def _piece(key: int, of: str, n: int, **columns: pa.Array) -> pa.RecordBatch:
    return one_row(_PIECE, partition=pa.array([key]), of=pa.array([of]), n=pa.array([n]), **columns)


def _assembled(pieces: list[ArrowRow], arrays: Arrays) -> pa.RecordBatch:
    """(user, arrays...) of the pieces of a partition, users ascending."""
    by_kind: dict[str, list[ArrowRow]] = {}
    for piece in pieces:
        by_kind.setdefault(piece.batch.column("of")[0].as_py(), []).append(piece)
    rows = by_kind.pop("rows", [])
    ids = _integers(rows, "user")
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    nothing = Ragged.of_lengths(np.zeros(len(ids), np.int64), np.zeros(0))
    columns = {name: Ragged(nothing.start, nothing.values.astype(kind)) for name, kind in arrays.items()}
    for name, kind in _ROWS.items():
        starts = [row.array(f"{name}_start", np.int64) for row in rows]
        lengths = np.concatenate([np.zeros(0, np.int64), *map(np.diff, starts)])
        values = np.concatenate([np.zeros(0, kind), *(row.array(name, kind) for row in rows)])
        columns[name] = Ragged.of_lengths(lengths, values).take(order)
    for name, parts in by_kind.items():
        user, item = (_integers(parts, each) for each in ("user", "item"))
        at = np.searchsorted(ids, user).clip(max=max(len(ids) - 1, 0))
        there = np.flatnonzero(ids[at] == user) if len(ids) else np.zeros(0, np.int64)
        at, item = at[there].astype(np.int32), item[there]
        _, column = numbered(item)
        indptr, order = grouped(at, column, len(ids))
        again = (np.diff(at[order]) == 0) & (np.diff(column[order]) == 0)
        if again.any():
            order = np.delete(order, np.flatnonzero(again) + 1)
            indptr = np.concatenate(([0], np.cumsum(np.bincount(at[order], minlength=len(ids)))))
        columns[name] = Ragged(indptr, item[order])
        if parts[0].has("score"):
            score = np.concatenate([part.array("score", np.float32) for part in parts])
            columns[f"{name}_score"] = Ragged(indptr, score[there][order])
    return pa.RecordBatch.from_arrays(
        [pa.array(ids), *(columns[name].arrow() for name in arrays)], names=["user", *arrays]
    )


def _integers(rows: list[ArrowRow], name: str) -> I64:
    return np.concatenate([np.zeros(0, np.int64), *(row.integers(name, row.n) for row in rows)])
