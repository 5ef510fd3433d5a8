"""What a worker does with one block of users and one of items: score them in tiles and keep a partial answer.

A question is asked of every pair of blocks; partial answers of the same users add up, in any order, to the whole.
Memory: a tile, two blocks, and k places a user.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sparkrec.kernels.arrays import F32, I32, I64
from sparkrec.kernels.csr import Csr
from sparkrec.kernels.retrieval import topk as kernel
from sparkrec.spark.arrow.blocks import Arrays, Block, Ragged
from sparkrec.spark.model.fitted import Layout, PairScorer

Partial: TypeAlias = dict[str, NDArray[Any]]

_EDGE = 64
"""Dense blocks are padded to a multiple of this. BLAS adds up the rows and columns at an edge in another order, which
would let the last bit of a score, and so a tie, depend on where a block ends."""
_CACHED_ITEMS, _CACHED_CELLS = 512, 512 << 10
"""A tile of 2 MiB, of items whose factors fit beside it: a quarter faster than rows of all items."""


@dataclass(frozen=True)
class Users:
    """A block of users and its rows."""

    block: Block
    rows: F32 | Csr
    head: PairScorer | None
    """What scores their rows; None: the inner product."""

    @classmethod
    def of(cls, block: Block, size: int, layout: Layout, head: PairScorer | None) -> Users:
        return cls(block, _matrix(block, size) if layout == "dense" else _csr(block), head)

    def __len__(self) -> int:
        return len(self.block)

    @property
    def first(self) -> int:
        return int(self.block.ids[0])


@dataclass(frozen=True)
class Items:
    """A block of items, its rows as the kernels want them for these users, and where each id is."""

    ids: I64
    rows: F32 | kernel.SourceMajor
    _places: I32 | None

    @classmethod
    def of(cls, block: Block, size: int, layout: Layout, users: Layout) -> Items:
        rows = _matrix(block, size) if layout == "dense" else _csr(block)
        span = int(block.ids[-1] - block.ids[0]) + 1
        places = None
        if span <= 16 * len(block):
            places = np.full(span, -1, np.int32)
            places[block.ids - block.ids[0]] = np.arange(len(block), dtype=np.int32)
        if users == "dense":
            return cls(block.ids, rows, places)  # type: ignore[arg-type]  # the kernel refuses sparse items here
        if isinstance(rows, np.ndarray):
            rows = rows[: len(block)]
        return cls(block.ids, kernel.prepare_items(rows, size), places)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def first(self) -> int:
        return int(self.ids[0])

    def locate(self, lists: Ragged) -> tuple[Ragged, NDArray[np.bool_]]:
        """Places in this block of lists of item ids, and which of the ids it has."""
        ids = lists.values
        if self._places is None:
            place = np.searchsorted(self.ids, ids).astype(np.int32)
            here = self.ids[np.minimum(place, len(self.ids) - 1)] == ids
        else:
            here = (ids >= self.ids[0]) & (ids <= self.ids[-1])
            place = self._places[np.where(here, ids - self.ids[0], 0)]
            here &= place >= 0
        return lists.keep(here, place), here


class Question(ABC):
    """What is asked of a user about all items."""

    lists: ClassVar[Arrays]
    """Arrays of each user that it needs, beside the model's rows."""
    partial: ClassVar[Arrays]
    """Arrays of a partial answer."""
    answers: ClassVar[str]
    """Columns of the answer, one row a user, as DDL."""

    @property
    @abstractmethod
    def bytes_a_user(self) -> int:
        """About how large a partial answer is."""

    @abstractmethod
    def ask(self, users: Users, items: Items, cells: int) -> Partial:
        """Partial answer of one pair of blocks; at most `cells` scores at a time."""

    @abstractmethod
    def merge(self, a: Partial, b: Partial) -> Partial:
        """Partial answer about the items of both."""

    @abstractmethod
    def answer(self, whole: Partial) -> pa.RecordBatch:
        """One row a user, of all partial answers merged."""


@dataclass(frozen=True)
class Ranking(Question):
    """The k best items that are not excluded; and, for each target, how many others score above it or the same.

    `items` and `scores` are the list, best first; `candidates` is the number of items that are neither excluded nor
    targets, of which `greater` and `equal` count those that beat and tie each target. `known` targets are among the
    items, and `rankable` of them not excluded. A target_score of -inf or NaN is one that everything beats.
    """

    k: int

    lists: ClassVar[Arrays] = {"exclude": np.int64, "target": np.int64, "target_score": np.float32}
    partial: ClassVar[Arrays] = {
        "user": np.int64,
        "target_start": np.int64,
        "item": np.int64,
        "score": np.float32,
        "candidates": np.int64,
        "known": np.int64,
        "rankable": np.int64,
        "greater": np.int64,
        "equal": np.int64,
    }
    answers: ClassVar[str] = (
        "user long, items array<long>, scores array<float>, candidates long, known long, rankable long, "
        "greater array<long>, equal array<long>"
    )

    @property
    def bytes_a_user(self) -> int:
        return 12 * self.k + 16

    def ask(self, users: Users, items: Items, cells: int) -> Partial:
        target, target_score = users.block.arrays["target"], users.block.arrays["target_score"].values
        exclude, _ = items.locate(users.block.arrays["exclude"])
        here = items.locate(target)[0]
        others = _union(exclude, here, len(items)) if len(target.values) else exclude
        best = kernel.TopK(len(users), len(items), self.k, exclude.lists)
        candidates = len(items) - others.lengths
        greater, equal = np.zeros(len(target.values), np.int64), np.zeros(len(target.values), np.int64)
        whole_rows = len(target.values) > 0  # of which greater and equal ones are counted
        for first, column, tile in _tiles(users, items, cells, whole_rows):
            best.offer(tile, first, column)
            stop = first + len(tile)
            asked = slice(target.start[first], target.start[stop])
            if asked.start < asked.stop:
                start = target.start[first : stop + 1] - asked.start
                greater[asked], equal[asked] = kernel.count_above(
                    tile, start, target_score[asked], *others.between(first, stop).lists
                )
        place, score = best.finish()
        # A target below everything ties with the padding of a tile, too.
        equal = np.minimum(equal, np.repeat(candidates, target.lengths) - greater)
        return {
            "user": users.block.ids.copy(),
            "target_start": target.start.copy(),
            "item": np.where(place >= 0, items.ids[place], -1),
            "score": score,
            "candidates": candidates,
            "known": here.lengths,
            "rankable": others.lengths - exclude.lengths,
            "greater": greater,
            "equal": equal,
        }

    def merge(self, a: Partial, b: Partial) -> Partial:
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

    def answer(self, whole: Partial) -> pa.RecordBatch:
        item = whole["item"].reshape(-1, self.k)
        there = item >= 0
        length = there.sum(axis=1)
        return pa.RecordBatch.from_pydict(
            {
                "user": whole["user"],
                "items": Ragged.of_lengths(length, item[there]).arrow(),
                "scores": Ragged.of_lengths(length, whole["score"].reshape(-1, self.k)[there]).arrow(),
                "candidates": whole["candidates"],
                "known": whole["known"],
                "rankable": whole["rankable"],
                "greater": Ragged(whole["target_start"], whole["greater"]).arrow(),
                "equal": Ragged(whole["target_start"], whole["equal"]).arrow(),
            }
        )


@dataclass(frozen=True)
class PairScores(Question):
    """The scores of a list of items; null for those that the model does not have."""

    lists: ClassVar[Arrays] = {"pair": np.int64}
    partial: ClassVar[Arrays] = {"user": np.int64, "start": np.int64, "item": np.int64, "score": np.float32}
    answers: ClassVar[str] = "user long, items array<long>, scores array<float>"

    @property
    def bytes_a_user(self) -> int:
        return 1024

    def ask(self, users: Users, items: Items, cells: int) -> Partial:
        pair = users.block.arrays["pair"]
        places, here = items.locate(pair)
        rows = users.rows[: len(users)] if isinstance(users.rows, np.ndarray) else users.rows
        score = np.full(len(pair.values), np.nan, np.float32)
        if users.head is None:
            score[here] = kernel.score_pairs(rows, items.rows, places.lists)
        else:
            score[here] = users.head.score_pairs(rows, items.rows, places.lists)  # type: ignore[arg-type]  # dense
        return {
            "user": users.block.ids.copy(),
            "start": pair.start.copy(),
            "item": pair.values.copy(),
            "score": score,
        }

    def merge(self, a: Partial, b: Partial) -> Partial:
        return {**a, "score": np.where(np.isnan(a["score"]), b["score"], a["score"])}

    def answer(self, whole: Partial) -> pa.RecordBatch:
        start = pa.array(whole["start"], pa.int32())
        score = pa.array(whole["score"], mask=np.isnan(whole["score"]))
        return pa.RecordBatch.from_pydict(
            {
                "user": whole["user"],
                "items": Ragged(whole["start"], whole["item"]).arrow(),
                "scores": pa.ListArray.from_arrays(start, score),
            }
        )


def _tiles(users: Users, items: Items, cells: int, whole_rows: bool) -> Iterator[tuple[int, int, F32]]:
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
            if users.head is None:
                kernel.scores(users.rows, part, first, stop, out=tile)
            else:
                tile[:] = users.head.scores(users.rows[first:stop], part)  # type: ignore[arg-type]  # dense
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
    """Places in either of two ascending lists a row, ascending and once."""
    keys = np.concatenate([a.rows * width + a.values, b.rows * width + b.values])
    keys.sort(kind="stable")  # merges the two runs
    once = np.ones(len(keys), np.bool_)
    once[1:] = keys[1:] != keys[:-1]
    keys = keys[once]
    lengths = np.bincount(keys // width, minlength=len(a.start) - 1)
    return Ragged.of_lengths(lengths, (keys % width).astype(np.int32))
