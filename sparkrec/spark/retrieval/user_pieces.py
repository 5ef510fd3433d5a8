"""Tasks that bring the rows of users and their lists of items together.

    CutRows, CutLists   cut rows of a model, or of a list, into pieces: arrays of many users of one partition
    AssembleBlocks      make blocks of users of all pieces of a partition

A list of a hundred million pairs is a few thousand pieces to whoever moves them: nobody sorts, hashes or joins a pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sparkrec.kernels.als.blocking import numbered
from sparkrec.kernels.arrays import I64
from sparkrec.kernels.csr import grouped, located
from sparkrec.kernels.ragged import Ragged, starts_of
from sparkrec.spark.arrow.blocks import ArrayColumns, PackBlocks, binary, read_lists
from sparkrec.spark.arrow.entries import by_partition, partition_ranges
from sparkrec.spark.arrow.packed_rows import ArrowRow, each_row, integers, joined, one_row, schema_of
from sparkrec.spark.retrieval.block_tasks import MODEL_ARRAYS

CHUNK_ROWS = 1 << 20
"""Pairs that are cut together."""

PIECE = schema_of(
    partition=pa.int64(),
    table=pa.string(),
    n=pa.int64(),
    user=pa.binary(),
    item=pa.binary(),
    score=pa.binary(),
    index=pa.binary(),
    index_start=pa.binary(),
    value=pa.binary(),
    value_start=pa.binary(),
)
"""n users of a partition: with their rows, where `table` is ROWS; or with an item (and score) of each, where it is the
name of a list, in which a user may come any number of times."""
ROWS = "rows"


@dataclass(frozen=True)
class CutRows:
    """Cuts rows (user, index, value) of a model into pieces.

    keys  (n,) of the partitions, one of which a hash of the user chooses
    """

    keys: I64

    @property
    def schema(self) -> pa.Schema:
        return PIECE

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            user = batch.column("user").to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
            start, order = by_partition(user, len(self.keys))
            arrays = {name: read_lists(batch.column(name), kind).take(order) for name, kind in MODEL_ARRAYS.items()}
            for key, first, stop in partition_ranges(self.keys, start):
                columns = {"user": integers(user[order[first:stop]])}
                for name, ragged in arrays.items():
                    part = ragged.between(first, stop)
                    columns |= {name: binary(part.values), f"{name}_start": binary(part.start)}
                yield _piece(key, ROWS, stop - first, **columns)


@dataclass(frozen=True)
class CutLists:
    """Cuts rows (user, item), or (user, item, score), of the lists called `name` into pieces.

    keys  as of `CutRows`
    """

    name: str
    keys: I64

    @property
    def schema(self) -> pa.Schema:
        return PIECE

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for table in joined(batches, CHUNK_ROWS):
            user, item = (table.column(side).to_numpy().astype(np.int64, copy=False) for side in ("user", "item"))
            score = table.column("score").to_numpy() if "score" in table.column_names else None
            start, order = by_partition(user, len(self.keys))
            user, item = user[order], item[order]
            score = None if score is None else score[order].astype(np.float32, copy=False)
            for key, first, stop in partition_ranges(self.keys, start):
                columns = {"user": integers(user[first:stop]), "item": integers(item[first:stop])}
                if score is not None:
                    columns["score"] = binary(score[first:stop])
                yield _piece(key, self.name, stop - first, **columns)


@dataclass(frozen=True)
class AssembleBlocks:
    """Makes blocks of users, as of `PackBlocks` with the key "user", of all pieces of a partition.

    A block has the model's rows and the `arrays` of each user: the items of a list, ascending and once, in the array of
    its name, their scores in `<name>_score`. An array without a list is empty. What lists have of users without a row
    is left out.
    """

    arrays: ArrayColumns
    max_rows: int
    max_bytes: int

    @property
    def _packing(self) -> PackBlocks:
        return PackBlocks("user", {**MODEL_ARRAYS, **self.arrays}, self.max_rows, self.max_bytes)

    @property
    def schema(self) -> pa.Schema:
        return self._packing.schema

    def __call__(self, group: pa.Table) -> pa.Table:
        users = _assembled([*each_row(group.to_batches())], self._packing.arrays)
        return pa.Table.from_batches([*self._packing([users] if users.num_rows else [])], self.schema)


def _piece(key: int, table: str, n: int, **columns: pa.Array) -> pa.RecordBatch:
    return one_row(PIECE, partition=pa.array([key]), table=pa.array([table]), n=pa.array([n]), **columns)


def _assembled(pieces: list[ArrowRow], arrays: ArrayColumns) -> pa.RecordBatch:
    """(user, arrays...) of the pieces of a partition, users ascending."""
    by_table: dict[str, list[ArrowRow]] = {}
    for piece in pieces:
        by_table.setdefault(piece.batch.column("table")[0].as_py(), []).append(piece)
    rows = by_table.pop(ROWS, [])
    ids = _integers(rows, "user")
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    empty = np.zeros(len(ids) + 1, np.int64)
    columns = {name: Ragged(empty, np.zeros(0, kind)) for name, kind in arrays.items()}
    for name, kind in MODEL_ARRAYS.items():
        starts = [piece.array(f"{name}_start", np.int64) for piece in rows]
        lengths = np.concatenate([np.zeros(0, np.int64), *map(np.diff, starts)])
        values = np.concatenate([np.zeros(0, kind), *(piece.array(name, kind) for piece in rows)])
        columns[name] = Ragged.of_lengths(lengths, values).take(order)
    for name, parts in by_table.items():
        user, item = (_integers(parts, side) for side in ("user", "item"))
        at, has_row = located(user, ids)
        pairs = np.flatnonzero(has_row)
        row, item = at[pairs].astype(np.int32), item[pairs]
        _, column = numbered(item)
        indptr, order = grouped(row, column, len(ids))
        repeated = (np.diff(row[order]) == 0) & (np.diff(column[order]) == 0)
        if repeated.any():
            order = np.delete(order, np.flatnonzero(repeated) + 1)
            indptr = starts_of(np.bincount(row[order], minlength=len(ids)))
        columns[name] = Ragged(indptr, item[order])
        if parts[0].has("score"):
            score = np.concatenate([part.array("score", np.float32) for part in parts])
            columns[f"{name}_score"] = Ragged(indptr, score[pairs][order])
    return pa.RecordBatch.from_arrays(
        [pa.array(ids), *(columns[name].arrow() for name in arrays)], names=["user", *arrays]
    )


def _integers(rows: list[ArrowRow], name: str) -> I64:
    return np.concatenate([np.zeros(0, np.int64), *(row.integers(name, row.n) for row in rows)])
