"""What is done to a block of users and a block of items: score every pair of them in tiles and keep a partial result.

    BlockTask     what to compute of the scores: RankItems, ScorePairs
    ScoreBlocks   the task on pairs of blocks: a partial result for each block of users, or at once the result
    MergeResults  the task on all partial results of a block of users: the result, one row for each user

Partial results about the same users are merged in any order. Memory: a tile, two blocks, and what a partial result
takes, about k entries a user.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sparkrec.kernels.arrays import F32, I32, I64
from sparkrec.kernels.csr import Csr, Storage, located
from sparkrec.kernels.ragged import Ragged
from sparkrec.kernels.retrieval import topk as kernel
from sparkrec.spark.arrow.blocks import ArrayColumns, Block, binary, first_id, unpack, view
from sparkrec.spark.arrow.packed_rows import schema_of
from sparkrec.spark.model.scorers import PairScorer

PartialResult: TypeAlias = dict[str, NDArray[Any]]
"""Arrays by name, as `BlockTask.partial_arrays` declares them."""

MODEL_ARRAYS: ArrayColumns = {"index": np.int32, "value": np.float32}
"""Arrays of a row of a model's table; `index` is empty where rows are dense."""
_EDGE = 64
"""Dense blocks are padded to a multiple of this. BLAS adds up the rows and columns at an edge in another order, which
would let the last bit of a score, and so a tie, depend on where a block ends."""
_CACHED_ITEMS, _CACHED_CELLS = 512, 512 << 10
"""A tile of 2 MiB, of items whose factors fit beside it: a quarter faster than rows of all items."""


@dataclass(frozen=True)
class UserBlock:
    """A block of users and its rows as the kernels want them."""

    block: Block
    rows: F32 | Csr
    scorer: PairScorer | None
    """None: scores are inner products."""

    @classmethod
    def of(cls, block: Block, size: int, storage: Storage, scorer: PairScorer | None) -> UserBlock:
        return cls(block, _matrix(block, size) if storage == "dense" else _csr(block), scorer)

    def __len__(self) -> int:
        return len(self.block)

    @property
    def first_id(self) -> int:
        return int(self.block.ids[0])


@dataclass(frozen=True)
class ItemBlock:
    """A block of items and its rows as the kernels want them for users of one storage."""

    ids: I64
    rows: F32 | kernel.SourceMajor
    _positions: I32 | None
    """(last id - first id + 1,) the position of each id, -1 where the block lacks it; None: ids are too far apart."""

    @classmethod
    def of(cls, block: Block, size: int, storage: Storage, user_storage: Storage) -> ItemBlock:
        rows = _matrix(block, size) if storage == "dense" else _csr(block)
        span = int(block.ids[-1] - block.ids[0]) + 1
        positions = None
        if span <= 16 * len(block):
            positions = np.full(span, -1, np.int32)
            positions[block.ids - block.ids[0]] = np.arange(len(block), dtype=np.int32)
        if user_storage == "dense":
            return cls(block.ids, rows, positions)  # type: ignore[arg-type]  # the kernel refuses sparse items here
        if isinstance(rows, np.ndarray):
            rows = rows[: len(block)]
        return cls(block.ids, kernel.prepare_items(rows, size), positions)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def first_id(self) -> int:
        return int(self.ids[0])

    def locate(self, lists: Ragged) -> tuple[Ragged, NDArray[np.bool_]]:
        """Find lists of item ids in this block.

        Returns the positions (int32) of those ids that the block has, list by list, and a mask (nnz,) of these ids.
        """
        ids = lists.values
        if self._positions is None:
            at, in_block = located(ids, self.ids)
            return lists.keep(in_block, at.astype(np.int32)), in_block
        in_block = (ids >= self.ids[0]) & (ids <= self.ids[-1])
        position = self._positions[np.where(in_block, ids - self.ids[0], 0)]
        in_block &= position >= 0
        return lists.keep(in_block, position), in_block


class BlockTask(ABC):
    """What to compute, for each user of a block, of the scores of items."""

    user_arrays: ClassVar[ArrayColumns]
    """Arrays of each user that it needs, beside the model's rows."""
    partial_arrays: ClassVar[ArrayColumns]
    """Arrays of a partial result."""
    schema: ClassVar[pa.Schema]
    """Columns of the result."""

    @property
    @abstractmethod
    def bytes_per_user(self) -> int:
        """About how large a partial result is."""

    @property
    def list_length(self) -> int:
        """Items that the list of a user has where the model has so many; 0: any number."""
        return 0

    @abstractmethod
    def score(self, users: UserBlock, items: ItemBlock, cells: int) -> PartialResult:
        """The partial result of a pair of blocks. Holds at most `cells` scores at a time."""

    @abstractmethod
    def merge(self, a: PartialResult, b: PartialResult) -> PartialResult:
        """The partial result about the items of both, of the same users."""

    @abstractmethod
    def result(self, merged: PartialResult) -> pa.RecordBatch:
        """The result from the merged partial results about all items."""


@dataclass(frozen=True)
class ScoreBlocks:
    """The task on rows that each hold a block of users (columns `user_*`) and a block of items (`item_*`).

    It yields a partial result for each block of users, and one more each time that it can hold no more of them.
    """

    task: BlockTask
    size: int
    """Columns of the model's rows."""
    user_storage: Storage
    item_storage: Storage
    scorer: PairScorer | None
    cells: int
    """Most scores in a tile."""
    held_bytes: int
    """Bytes of partial results that are held before they are yielded."""
    all_items: bool
    """Whether each pair has all items, so that nothing has to be merged: results are yielded, not partial ones."""

    @property
    def schema(self) -> pa.Schema:
        if self.all_items:
            return self.task.schema
        return pa.schema([("block", pa.int64()), *((name, pa.binary()) for name in self.task.partial_arrays)])

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        if self.all_items:
            for users, items in self._pairs(batches):
                yield self.task.result(self.task.score(users, items, self.cells))
            return
        held: dict[int, PartialResult] = {}
        size_held = 0
        for users, items in self._pairs(batches):
            partial = self.task.score(users, items, self.cells)
            if users.first_id in held:
                held[users.first_id] = self.task.merge(held[users.first_id], partial)
                continue
            held[users.first_id] = partial
            size_held += sum(array.nbytes for array in partial.values())
            if size_held > self.held_bytes:
                yield from self._encoded(held)
                held, size_held = {}, 0
        yield from self._encoded(held)

    def _pairs(self, batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[UserBlock, ItemBlock]]:
        user_arrays = {**MODEL_ARRAYS, **self.task.user_arrays}
        users: UserBlock | None = None
        items: ItemBlock | None = None
        for batch in batches:
            for row in range(batch.num_rows):
                # One side stays the same for many pairs.
                if users is None or users.first_id != first_id(batch, row, "user"):
                    block = unpack(batch, row, "user", user_arrays)
                    users = UserBlock.of(block, self.size, self.user_storage, self.scorer)
                if items is None or items.first_id != first_id(batch, row, "item"):
                    block = unpack(batch, row, "item", MODEL_ARRAYS)
                    items = ItemBlock.of(block, self.size, self.item_storage, self.user_storage)
                yield users, items

    def _encoded(self, held: dict[int, PartialResult]) -> Iterator[pa.RecordBatch]:
        for block, partial in held.items():
            arrays = [binary(partial[name]) for name in self.task.partial_arrays]
            yield pa.RecordBatch.from_arrays([pa.array([block], pa.int64()), *arrays], schema=self.schema)


@dataclass(frozen=True)
class MergeResults:
    """The task on all partial results of one block of users, as `ScoreBlocks` yields them."""

    task: BlockTask

    @property
    def schema(self) -> pa.Schema:
        return self.task.schema

    def __call__(self, group: pa.Table) -> pa.Table:
        partials = (
            {name: view(group, row, name, dtype) for name, dtype in self.task.partial_arrays.items()}
            for row in range(len(group))
        )
        return pa.Table.from_batches([self.task.result(reduce(self.task.merge, partials))])


@dataclass(frozen=True)
class RankItems(BlockTask):
    """The k best items that are not excluded; and, for each target, how many others score above it or the same.

    `items` and `scores` are the list, best first; `candidates` is the number of items that are neither excluded nor
    targets, of which `greater` and `equal` count those that score above and the same as each of the `targets`, which
    ascend. `known` targets are among the items, and `rankable` of them not excluded. A target_score of -inf or NaN is
    below everything.
    """

    k: int

    user_arrays: ClassVar[ArrayColumns] = {"exclude": np.int64, "target": np.int64, "target_score": np.float32}
    partial_arrays: ClassVar[ArrayColumns] = {
        "user": np.int64,
        "target_start": np.int64,
        "target": np.int64,
        "item": np.int64,
        "score": np.float32,
        "candidates": np.int64,
        "known": np.int64,
        "rankable": np.int64,
        "greater": np.int64,
        "equal": np.int64,
    }
    schema: ClassVar[pa.Schema] = schema_of(
        user=pa.int64(),
        items=pa.list_(pa.int64()),
        scores=pa.list_(pa.float32()),
        candidates=pa.int64(),
        known=pa.int64(),
        rankable=pa.int64(),
        targets=pa.list_(pa.int64()),
        greater=pa.list_(pa.int64()),
        equal=pa.list_(pa.int64()),
    )

    @property
    def bytes_per_user(self) -> int:
        return 12 * self.k + 16

    @property
    def list_length(self) -> int:
        return self.k

    def score(self, users: UserBlock, items: ItemBlock, cells: int) -> PartialResult:
        targets, target_scores = users.block.arrays["target"], users.block.arrays["target_score"].values
        exclude, _ = items.locate(users.block.arrays["exclude"])
        known, _ = items.locate(targets)
        not_counted = _union(exclude, known, len(items)) if len(targets.values) else exclude
        best = kernel.TopK(len(users), len(items), self.k, exclude)
        candidates = len(items) - not_counted.lengths
        greater, equal = np.zeros(len(targets.values), np.int64), np.zeros(len(targets.values), np.int64)
        whole_rows = len(targets.values) > 0  # of which greater and equal ones are counted
        for first, column, tile in _tiles(users, items, cells, whole_rows):
            best.offer(tile, first, column)
            stop = first + len(tile)
            in_tile = slice(targets.start[first], targets.start[stop])
            if in_tile.start < in_tile.stop:
                start = targets.start[first : stop + 1] - in_tile.start
                greater[in_tile], equal[in_tile] = kernel.count_above(
                    tile, start, target_scores[in_tile], *not_counted.between(first, stop)
                )
        position, score = best.finish()
        # A target below everything ties with the padding of a tile, too.
        equal = np.minimum(equal, np.repeat(candidates, targets.lengths) - greater)
        return {
            "user": users.block.ids.copy(),
            "target_start": targets.start.copy(),
            "target": targets.values.copy(),
            "item": np.where(position >= 0, items.ids[position], -1),
            "score": score,
            "candidates": candidates,
            "known": known.lengths,
            "rankable": not_counted.lengths - exclude.lengths,
            "greater": greater,
            "equal": equal,
        }

    def merge(self, a: PartialResult, b: PartialResult) -> PartialResult:
        shape = (-1, self.k)
        item, score = kernel.merge_topk(
            a["item"].reshape(shape),
            a["score"].reshape(shape),
            b["item"].reshape(shape),
            b["score"].reshape(shape),
            self.k,
        )
        counts = {name: a[name] + b[name] for name in ("candidates", "known", "rankable", "greater", "equal")}
        return {**a, **counts, "item": item, "score": score}

    def result(self, merged: PartialResult) -> pa.RecordBatch:
        item = merged["item"].reshape(-1, self.k)
        taken = item >= 0
        length = taken.sum(axis=1)
        return pa.RecordBatch.from_pydict(
            {
                "user": merged["user"],
                "items": Ragged.of_lengths(length, item[taken]).arrow(),
                "scores": Ragged.of_lengths(length, merged["score"].reshape(-1, self.k)[taken]).arrow(),
                "candidates": merged["candidates"],
                "known": merged["known"],
                "rankable": merged["rankable"],
                "targets": Ragged(merged["target_start"], merged["target"]).arrow(),
                "greater": Ragged(merged["target_start"], merged["greater"]).arrow(),
                "equal": Ragged(merged["target_start"], merged["equal"]).arrow(),
            }
        )


@dataclass(frozen=True)
class ListItems(RankItems):
    """The k best items that are not excluded, one row each, best first: `rank` counts from 1."""

    schema: ClassVar[pa.Schema] = schema_of(user=pa.int64(), rank=pa.int32(), item=pa.int64(), score=pa.float32())

    def result(self, merged: PartialResult) -> pa.RecordBatch:
        item = merged["item"].reshape(-1, self.k)
        row, column = np.nonzero(item >= 0)
        score = merged["score"].reshape(-1, self.k)[row, column]
        columns = {"user": merged["user"][row], "rank": column + 1, "item": item[row, column], "score": score}
        return pa.RecordBatch.from_pydict(columns, self.schema)


@dataclass(frozen=True)
class ScorePairs(BlockTask):
    """The scores of a list of items; null for those that the model does not have."""

    user_arrays: ClassVar[ArrayColumns] = {"pair": np.int64}
    partial_arrays: ClassVar[ArrayColumns] = {
        "user": np.int64,
        "start": np.int64,
        "item": np.int64,
        "score": np.float32,
    }
    schema: ClassVar[pa.Schema] = schema_of(user=pa.int64(), items=pa.list_(pa.int64()), scores=pa.list_(pa.float32()))

    @property
    def bytes_per_user(self) -> int:
        return 1024

    def score(self, users: UserBlock, items: ItemBlock, cells: int) -> PartialResult:
        pairs = users.block.arrays["pair"]
        positions, in_block = items.locate(pairs)
        rows = users.rows[: len(users)] if isinstance(users.rows, np.ndarray) else users.rows
        score = np.full(len(pairs.values), np.nan, np.float32)
        if users.scorer is None:
            score[in_block] = kernel.score_pairs(rows, items.rows, positions)
        else:
            score[in_block] = users.scorer.score_pairs(rows, items.rows, positions)  # type: ignore[arg-type]  # dense
        return {
            "user": users.block.ids.copy(),
            "start": pairs.start.copy(),
            "item": pairs.values.copy(),
            "score": score,
        }

    def merge(self, a: PartialResult, b: PartialResult) -> PartialResult:
        return {**a, "score": np.where(np.isnan(a["score"]), b["score"], a["score"])}

    def result(self, merged: PartialResult) -> pa.RecordBatch:
        start = pa.array(merged["start"], pa.int32())
        score = pa.array(merged["score"], mask=np.isnan(merged["score"]))
        return pa.RecordBatch.from_pydict(
            {
                "user": merged["user"],
                "items": Ragged(merged["start"], merged["item"]).arrow(),
                "scores": pa.ListArray.from_arrays(start, score),
            }
        )


def _tiles(users: UserBlock, items: ItemBlock, cells: int, whole_rows: bool) -> Iterator[tuple[int, int, F32]]:
    """First user and first item of each tile, and its scores; the buffer is used again for the next.

    whole_rows  a tile has all items. Else dense ones are small enough to stay in the cache while they are read.
    """
    n_users = users.rows.n_rows if isinstance(users.rows, Csr) else len(users.rows)
    n_items = items.rows.n_items if isinstance(items.rows, kernel.SourceMajor) else len(items.rows)
    width = n_items
    if isinstance(items.rows, np.ndarray) and not whole_rows:
        cells, width = min(cells, _CACHED_CELLS), min(width, _CACHED_ITEMS)
    height = max(1, cells // width // _EDGE) * _EDGE
    buffer = np.empty(min(height, n_users) * width, np.float32)
    for first in range(0, len(users), height):
        stop = min(first + height, n_users)
        for column in range(0, n_items, width):
            part = items.rows[column : column + width] if isinstance(items.rows, np.ndarray) else items.rows
            shape = stop - first, min(width, n_items - column)
            tile = buffer[: shape[0] * shape[1]].reshape(shape)
            if users.scorer is None:
                kernel.scores(users.rows, part, first, stop, out=tile)
            else:
                tile[:] = users.scorer.scores(users.rows[first:stop], part)  # type: ignore[arg-type]  # dense
            tile[:, max(0, len(items) - column) :] = -np.inf
            yield first, column, tile[: len(users) - first]


def _matrix(block: Block, size: int) -> F32:
    rows: F32 = block.arrays["value"].values.reshape(len(block), size)
    missing = -len(rows) % _EDGE
    return np.concatenate([rows, np.zeros((missing, size), np.float32)]) if missing else rows


def _csr(block: Block) -> Csr:
    value = block.arrays["value"]
    return Csr(value.start, block.arrays["index"].values, value.values)


def _union(a: Ragged, b: Ragged, width: int) -> Ragged:
    """Positions below `width` that are in either of two ascending lists of each row, ascending and once."""
    keys = np.concatenate([a.rows * width + a.values, b.rows * width + b.values])
    keys.sort(kind="stable")  # merges the two runs
    once = np.ones(len(keys), np.bool_)
    once[1:] = keys[1:] != keys[:-1]
    keys = keys[once]
    lengths = np.bincount(keys // width, minlength=len(a.start) - 1)
    return Ragged.of_lengths(lengths, (keys % width).astype(np.int32))
