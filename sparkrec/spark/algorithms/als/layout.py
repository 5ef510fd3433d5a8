"""How ALS lays ratings and factors out over Spark.

Users are dealt out to user blocks and items to item blocks (`plan`). Each half-step updates one side (`dst`) from
the other (`src`); the two half-steps run the same code with the sides swapped.

In-block of a dst block, one row, made once:
    ids         its users, ascending
    split       users of whom it has some ratings only, because they have too many for one block
    indptr...   its ratings as CSR, a row for each of `ids`, then of `split`; a column is a position in `needed`
    needed      src block by src block, ascending, the ids of the items that were rated
Out-links of a src block: for each dst block, the positions of that dst block's `needed`: what to send to it.

Example. Users 10, 11 in user block A rate items 5, 7 of item block P and 6 of item block Q. In-block A has
ids [10, 11] and needed {P: [5, 7], Q: [6]}, so that columns 0, 1, 2 are items 5, 7, 6. If P has the items [3, 5, 7] its
out-links hold {A: [1, 2]}; Q's {A: [0]}: when P has solved its items it sends rows 1 and 2 to A, and nothing else.

The system of a split user is summed in pieces, in the blocks that have its ratings, and solved on the driver, which
tells its factors to every task: its block is SPLIT, and no block sends them.

Every block is a row of binary columns (little-endian; ids and indptr int64, positions int32, of ratings uint16 where
that is enough, and their values a byte where they are few), so that Spark never looks at a rating again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sparkrec.errors import TrainError
from sparkrec.kernels.als.blocking import distinct_count
from sparkrec.kernels.arrays import I64
from sparkrec.spark.algorithms.als import pack
from sparkrec.spark.algorithms.als.plan import SidePlan, block_count, memory_of_task, plan_side
from sparkrec.spark.algorithms.als.settings import AlsSettings
from sparkrec.spark.platform.conf import is_local, setting
from sparkrec.spark.platform.few import narrowed
from sparkrec.spark.platform.memory import bytes_of
from sparkrec.spark.platform.partitions import partition_keys
from sparkrec.spark.runner import GroupFunction, RowFunction, Rows

log = logging.getLogger(__name__)

SIDES = ("user", "item")
_COLUMNS = (*SIDES, "value", "confidence")

# As Scala has them: its names are for rows as they are, PySpark's for rows that are pickled.
_LEVELS = {
    "MEMORY_AND_DISK": StorageLevel.MEMORY_AND_DISK_DESER,
    "MEMORY_ONLY": StorageLevel(useDisk=False, useMemory=True, useOffHeap=False, deserialized=True),
    "DISK_ONLY": StorageLevel.DISK_ONLY,
}


@dataclass(frozen=True)
class Side:
    """Users or items in blocks."""

    name: str
    """user or item."""
    plan: SidePlan
    blocks: Rows
    """IN_BLOCK rows, each in the partition of its key."""
    outlines: Rows
    """OUTLINE rows, in the same partitions."""
    keys: set[int]
    """Of the blocks that are there: one that got no ratings is not."""
    n_ids: int
    counts: I64
    """Ratings in each bucket of ids."""

    @cached_property
    def _layout(self) -> Rows:
        return self.outlines.union(self.blocks.select("block", "indptr", "indices", "value", "confidence"))

    def with_ratings(self, messages: Rows) -> Rows:
        """For each `block` its ratings, its outline and the messages to it.

        A block is a row with its layout, a message a row without: grouped by block, each comes to its solver. Spark
        4.1 and later see that all sides of the union lie in the same partitions and leave the layout where it is; an
        optimiser that does not see it moves the layout too, which is slower and as right.
        """
        return self._with(messages, self._layout)

    def without_ratings(self, messages: Rows) -> Rows:
        """For each `block` its outline and the messages to it."""
        return self._with(messages, self.outlines)

    def _with(self, messages: Rows, rows: Rows) -> Rows:
        return rows.union(messages.partitioned("block", len(self.plan.keys)))

    def release(self) -> None:
        """Let go of what is held."""
        self.blocks.release()
        self.outlines.release()


def columns_of(ratings: DataFrame) -> DataFrame:
    """Ratings as `lay_out` takes them: with numbers of 32 bits."""
    kinds = dict(ratings.dtypes)
    if wide := [name for name in ("value", "confidence") if kinds.get(name, "float") != "float"]:
        ratings = ratings.withColumns({name: F.col(name).cast("float") for name in wide})
    return narrowed(ratings, *(name for name in _COLUMNS if name in kinds))


def lay_out(
    ratings: Rows,
    settings: AlsSettings,
    preference: pack.Preference | None = None,
    observed: Rows | None = None,
    split_above: float | None = None,
) -> tuple[Side, Side]:
    """Both sides of `ratings` (user, item, value float; confidence float or none), held; the caller releases them.

    settings     of which it takes rank, blocks, storage level and the exponent of propensities
    preference   makes of the values targets and confidences
    observed     (item) of all ratings that propensities come from; None: of these
    split_above  most ratings of an id that is solved in one block; None: half the ratings of a block
    """
    ratings = ratings.select(*(name for name in _COLUMNS if name in ratings.columns))
    propensity = None
    if settings.propensity_exponent:
        counts = (observed or ratings).select("item").counted("item")
        of_items = counts.select(ratings="n").counted("ratings").table()
        propensity = pack.Propensity.over(
            settings.propensity_exponent, of_items["ratings"].to_pylist(), of_items["n"].to_pylist()
        )
        ratings = ratings.joined(counts, "item")
    # Cut from their history: the ratings are read once.
    chunks = ratings.map_rows(RowFunction(pack.CHUNK, pack.chunker(preference, propensity))).computed()
    tallies = chunks.where_null("n").select(*pack.TALLIES, "unusable", "example").table().to_pylist()
    if not tallies:
        raise TrainError("als: found no ratings, expected at least one")
    if unusable := sum(row["unusable"] for row in tallies):
        example = next(row["example"] for row in tallies if row["example"])
        raise TrainError(
            f"als: {unusable} ratings cannot be used, among them: {example}. Ids must not be null, values finite in "
            "float32, confidences finite and not negative: leave out or mend these rows."
        )
    n_of, distinct = {}, {}
    for side in SIDES:
        n_of[side] = np.sum([np.frombuffer(row[f"{side}_counts"], np.int64) for row in tallies], axis=0)
        seen = [np.frombuffer(row[f"{side}_registers"], np.int32) for row in tallies]
        distinct[side] = distinct_count(np.max(seen, axis=0))
    n_ratings, slots = int(n_of["user"].sum()), ratings.slots
    memory = task_memory(ratings.spark, slots)
    rated = chunks.where_present("n").select("n", *SIDES, "value", "confidence")
    plans = {}
    for side, other, given in (("user", "item", settings.user_blocks), ("item", "user", settings.item_blocks)):
        n_blocks = given or block_count(n_ratings, distinct[other], settings.rank, slots, memory)
        most = split_above or max(n_ratings / n_blocks / 2, 1000.0)
        found = _popular(rated, side, n_of[side], most)
        plans[side] = plan_side(n_of[side], found, partition_keys(n_blocks), most)
        log.info("als: about %s %ss in %s blocks, %s split", round(distinct[side]), side, n_blocks, len(found))
    level = _LEVELS[settings.storage_level]
    blocks = {side: _in_blocks(rated, plans, side, other, level) for side, other in (SIDES, SIDES[::-1])}
    sides = []
    for side, other in (SIDES, SIDES[::-1]):
        outlines = _outlines(blocks[side], blocks[other], len(plans[side].keys), level)
        sizes = outlines.select("block", "n").table().to_pydict()
        keys = sorted(sizes["block"])
        if len(set(keys)) != len(keys):
            raise RuntimeError(f"als: {side} blocks {keys} came, expected each once")
        n_ids = sum(sizes["n"]) + len(plans[side].split)
        sides.append(Side(side, plans[side], blocks[side], outlines, set(keys), n_ids, n_of[side]))
    return sides[0], sides[1]


def task_memory(spark: SparkSession, slots: int) -> float:
    """Bytes that a task may use, as far as Spark says."""
    local = is_local(spark)
    size = bytes_of(setting(spark, "spark.driver.memory" if local else "spark.executor.memory") or "1g")
    cores = slots if local else int(setting(spark, "spark.executor.cores") or 1)
    return memory_of_task(size, cores)


def _popular(chunks: Rows, side: str, counts: I64, most: float) -> dict[int, int]:
    """The ids with more than `most` ratings, and how many: only in buckets that have as many can they be."""
    buckets = np.flatnonzero(counts > most)
    if len(buckets) == 0:
        return {}
    found = chunks.map_rows(RowFunction(pack.POPULAR, pack.popular(side, buckets)))
    totals = found.map_groups("bucket", GroupFunction(pack.POPULAR, pack.most_popular(most))).table()
    return dict(zip(totals["id"].to_pylist(), totals["count"].to_pylist(), strict=True))


def _in_blocks(chunks: Rows, plans: dict[str, SidePlan], dst: str, src: str, level: StorageLevel) -> Rows:
    n = len(plans[dst].keys)
    pieces = chunks.map_rows(RowFunction(pack.PIECE, pack.pieces(plans[dst], dst, src)))
    assemble = GroupFunction(pack.IN_BLOCK, pack.assemble(plans[dst], plans[src]))
    return pieces.map_groups("block", assemble, partitions=n).held("block", n, level)


def _outlines(blocks: Rows, needing: Rows, n: int, level: StorageLevel) -> Rows:
    wanted = needing.select("block", "needed").map_rows(RowFunction(pack.WANTED, pack.wanted))
    rows = blocks.select("block", "ids", "split", "needed").union(wanted)
    return rows.map_groups("block", GroupFunction(pack.OUTLINE, pack.link)).held("block", n, level)
