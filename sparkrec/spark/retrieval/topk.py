"""Top k, scores of pairs and rank counts of a model, block against block: never users x items in one place.

    users  -> blocks of rows and of lists of items (to exclude, targets, pairs)  \\
                                                                           cross join, score, merge
    items  -> blocks of rows, bounded in number and in bytes                     /

The smaller side is broadcast. A task scores the pairs of blocks it gets in tiles and keeps a partial result for each
block of users, at most `Blocks.held_bytes` of them; the partial results of a block meet in one group. Items that fit
into one block need no merging. The result does not depend on how many blocks there are: an item wins by its score and,
among equals, by the lower id. Only the last bit of a dense score may: on some CPUs BLAS adds up in an order that
depends on the place in a block (seen with OpenBLAS's kernels for AVX2).

Both tables of a model must come the same again when Spark computes them anew: read from files, or persisted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from sparkrec.kernels.csr import Storage
from sparkrec.spark.arrow.unlist import Unlist
from sparkrec.spark.in_place import carry_out, computed
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.scorers import PairScorer
from sparkrec.spark.platform.few import narrowed
from sparkrec.spark.retrieval.block_tasks import (
    MODEL_ARRAYS,
    BlockTask,
    ListItems,
    MergeResults,
    RankItems,
    ScoreBlocks,
    ScorePairs,
)
from sparkrec.spark.retrieval.user_blocks import user_blocks
from sparkrec.spark.runner import Broadcast, Rows

log = logging.getLogger(__name__)

_LEAST_USERS, _TASKS_A_SLOT = 1024, 4
"""Users that are worth a task, and tasks of a slot that end about when those of another do."""


_CELLS = Unlist({"items": ("item", pa.int64()), "scores": ("score", pa.float32())}, {"user": pa.int64()})


@dataclass(frozen=True)
class Blocks:
    """Sizes that trade memory for speed and change no result."""

    users: int = 16384
    """Most users in a block, when tasks get different blocks; a cluster with many tasks gets smaller ones."""
    broadcast_users: int = 32768
    """Users in a block, when every task gets all of them."""
    items: int = 32768
    """Items in a block."""
    bytes: int = 32 << 20
    """Bytes of a block."""
    cells: int = 8 << 20
    """Scores in a tile, 4 bytes each."""
    held_bytes: int = 64 << 20
    """Bytes of partial results that a task holds."""
    broadcast_bytes: int = 320 << 20
    """Most bytes of a side that is broadcast."""


def topk(
    model: Model,
    k: int,
    users: DataFrame | None = None,
    exclude: DataFrame | None = None,
    items: DataFrame | None = None,
    blocks: Blocks = Blocks(),
) -> DataFrame:
    """The k best items of each user: user long, rank int from 1, item long, score float.

    users    (user) whom to rank for; None: all of the model. One whom the model does not know gets no row.
    exclude  (user, item) what not to rank
    items    (item) what to rank; None: all of the model
    Ties go to the lower item id. A user with fewer than k items left gets those.
    """
    return _sweep(model, ListItems(k), users, {} if exclude is None else {"exclude": exclude}, items, blocks)


def score_pairs(model: Model, pairs: DataFrame, blocks: Blocks = Blocks()) -> DataFrame:
    """`pairs` (user, item) and score float: null where the model does not know the user or the item."""

    def plan(pairs: Rows, lists: Rows) -> DataFrame:
        scored = lists.map_rows(_CELLS)
        return pairs.select("user", "item").joined(scored, "user", "item", every=True).frame()

    return carry_out("scores", plan, narrowed(pairs, "user", "item"), score_lists(model, pairs, blocks))


def best(model: Model, pairs: DataFrame, k: int, blocks: Blocks = Blocks()) -> DataFrame:
    """The k best of each user's `pairs` (user, item): columns and ties as `topk`. What the model does not know is left
    out."""
    scored = score_pairs(model, pairs, blocks).where(F.col("score").isNotNull())
    place = F.row_number().over(Window.partitionBy("user").orderBy(F.desc("score"), "item")).alias("rank")
    return scored.select("user", place, "item", "score").where(F.col("rank") <= k)


def rank_counts(
    model: Model, targets: DataFrame, exclude: DataFrame | None = None, blocks: Blocks = Blocks()
) -> DataFrame:
    """How `targets` (user, item) rank: user, item, greater, equal, candidates; all long.

    candidates  items of the model that are neither excluded nor targets of the user
    greater     candidates that score above the target; `equal` the same as it. An item that the model does not know is
                below all. Users whom it does not know have no row.
    """
    scored = computed("scores", score_pairs(model, targets, blocks)).fillna(float("-inf"), ["score"])
    ranked = rank(model, 1, targets.select("user").distinct(), exclude=exclude, targets=scored, blocks=blocks)
    cell = F.explode(F.arrays_zip(F.col("targets").alias("item"), "greater", "equal")).alias("cell")
    return ranked.select("user", cell, "candidates").select("user", "cell.*", "candidates")


def rank(
    model: Model,
    k: int,
    users: DataFrame | None = None,
    *,
    exclude: DataFrame | None = None,
    targets: DataFrame | None = None,
    items: DataFrame | None = None,
    blocks: Blocks = Blocks(),
) -> DataFrame:
    """`topk` and `rank_counts` in one pass, one row a user: columns as `RankItems.schema`.

    targets  (user, item, score), no pair twice, no score null; `greater` and `equal` follow its items, ascending
    """
    lists = {}
    if exclude is not None:
        lists["exclude"] = exclude
    if targets is not None:
        lists["target"] = targets
    return _sweep(model, RankItems(k), users, lists, items, blocks)


def score_lists(model: Model, pairs: DataFrame, blocks: Blocks = Blocks()) -> DataFrame:
    """Scores of `pairs` (user, item), one row a user: columns as `ScorePairs.schema`, items ascending."""
    return _sweep(model, ScorePairs(), pairs, {"pair": pairs}, None, blocks)


@dataclass(frozen=True)
class _Plan:
    """How the two sides are cut into blocks, and which one every task gets whole."""

    partitions: int
    """Of the users."""
    rows: int
    """Users in a block."""
    broadcast: Broadcast
    """Users are on the left."""
    one_block: bool
    """Whether all items are in one block, so that each block of users has its result at once."""


def _sweep(
    model: Model,
    task: BlockTask,
    users: DataFrame | None,
    lists: Mapping[str, DataFrame],
    items: DataFrame | None,
    blocks: Blocks,
) -> DataFrame:
    """Carry out a task on every block of users with every block of items: columns as `task.schema`.

    users  (user) to take; None: all of the model
    lists  of items for these users, by the names of `task.user_arrays`
    items  (item) to take; None: all of the model
    """
    sweep = _Sweep(model, task, list(lists), blocks)
    tables = [narrowed(table, side, *MODEL_ARRAYS) for side, table in (("user", model.users), ("item", model.items))]
    chosen = [frame and narrowed(frame, side) for side, frame in (("user", users), ("item", items))]
    columns = [narrowed(each, "user", "item", *_scores_of(each)) for each in lists.values()]
    return carry_out("topk", sweep, *tables, *chosen, *columns)


def _scores_of(rows: DataFrame | Rows) -> list[str]:
    return [name for name in rows.columns if name == "score"]


@dataclass(frozen=True)
class _Sweep:
    """The plan of `_sweep`."""

    model: Model
    task: BlockTask
    names: list[str]
    """Of the lists."""
    blocks: Blocks

    def __call__(self, users: Rows, items: Rows, wanted: Rows | None, allowed: Rows | None, *lists: Rows) -> DataFrame:
        model, task, blocks = self.model, self.task, self.blocks
        users, items = users.select("user", "index", "value"), items.select("item", "index", "value")
        if wanted is not None:
            users = users.only(wanted.select("user"), "user")
        if allowed is not None:
            items = items.only(allowed.select("item").distinct(), "item")
        lists = tuple(each.select("user", "item", *_scores_of(each)) for each in lists)
        plan = self._plan(users, items, lists)
        item_blocks = items.pack("item", MODEL_ARRAYS, None if plan.one_block else (blocks.items, blocks.bytes))
        of_names = dict(zip(self.names, lists, strict=True))
        of_users = user_blocks(users, of_names, task.user_arrays, plan.partitions, plan.rows, blocks.bytes)
        scoring = ScoreBlocks(
            task,
            model.size,
            model.user_storage,
            model.item_storage,
            cast(PairScorer | None, model.scorer),
            blocks.cells,
            blocks.held_bytes,
            plan.one_block,
        )
        scored = of_users.map_pairs(item_blocks, scoring, plan.broadcast)
        return (scored if plan.one_block else scored.map_groups("block", MergeResults(task))).frame()

    def _plan(self, users: Rows, items: Rows, lists: Sequence[Rows]) -> _Plan:
        """Count both sides, in one job, and the lists where it depends on them."""
        model, task, blocks = self.model, self.task, self.blocks
        lengths = "value" if "sparse" in (model.user_storage, model.item_storage) else None
        (n_users, user_entries), (n_items, item_entries) = users.measured(lengths, items)

        def size(n: int, entries: int, storage: Storage) -> float:
            return n * (16 + 4 * model.size) if storage == "dense" else 24 * n + 8 * entries

        if task.list_length > n_items:
            log.warning("k is %s, but there are %s items to rank: lists are shorter", task.list_length, n_items)
        user_bytes = size(n_users, user_entries, model.user_storage)
        item_bytes = size(n_items, item_entries, model.item_storage)
        one_block = n_items <= blocks.items and item_bytes <= blocks.bytes
        if not one_block:
            user_bytes += sum(8 * each.count() for each in lists)
        most = max(64, blocks.held_bytes // 4 // task.bytes_per_user)
        broadcast: Broadcast
        # Blocks of users make tasks of equal size, files of items do not: so users stream unless items are far larger.
        if item_bytes <= max(blocks.bytes, min(blocks.broadcast_bytes, 8 * user_bytes)):
            even = max(_LEAST_USERS, -(-n_users // (_TASKS_A_SLOT * users.slots)))
            block, broadcast = min(blocks.users, even, most), "right"
        else:
            block = min(blocks.broadcast_users, most)
            broadcast = "left" if user_bytes <= blocks.broadcast_bytes else "neither"
        log.debug(
            "%s users (%.0f MB) x %s items (%.0f MB), %s broadcast",
            n_users,
            user_bytes / 1e6,
            n_items,
            item_bytes / 1e6,
            {"left": "users", "right": "items", "neither": "neither"}[broadcast],
        )
        # Hashing makes partitions of nearly, not quite, equal size.
        return _Plan(max(1, -(-n_users // block)), block + block // 4, broadcast, one_block)
