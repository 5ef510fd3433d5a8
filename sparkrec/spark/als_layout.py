"""How ALS lays ratings and factors out over Spark.

Users are hashed to user blocks and items to item blocks. Each half-step updates one side (`dst`) from the other
(`src`); the two half-steps run the same code with the sides swapped.

In-block of a dst block, one row, made once:
    ids         its users, ascending
    indptr...   its ratings as CSR, user by user; a column is a position in the src factors that the block needs
    needed      for each src block, which of its positions those are, ascending
Out-links of a src block: for each dst block, the positions of that dst block's `needed`: what to send to it.

Example. Users 10, 11 in user block A rate items 5, 7 of item block P and 6 of item block Q. In-block A has
ids [10, 11] and needed {P: [0, 1], Q: [0]}, so that columns 0, 1, 2 are items 5, 7, 6. P's out-links hold {A: [0, 1]},
Q's {A: [0]}: when P has solved its items it sends rows 0 and 1 to A, and nothing else.

Every block is a row of binary columns (little-endian; ids int64, positions int32, indptr int64, values float32), so
that Spark never looks at a rating again.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from sparkrec.spark.als_block import IN_BLOCK, pack_in_block


@dataclass(frozen=True)
class Side:
    """Users or items in blocks."""

    name: str
    keys: list[int]
    """Key of each block."""
    index: DataFrame
    """id, block, position."""
    blocks: DataFrame
    """Columns of IN_BLOCK, and `links` in the form of `needed`."""

    @property
    def n_partitions(self) -> int:
        return len(self.keys)


def lay_out(ratings: DataFrame, user_blocks: int, item_blocks: int) -> tuple[Side, Side]:
    """Both sides of `ratings` (user, item, value, confidence), in memory; the caller unpersists their `blocks`."""
    spark = ratings.sparkSession
    keys = {"user": partition_keys(spark, user_blocks), "item": partition_keys(spark, item_blocks)}
    index = {side: _index(ratings, side, keys[side]).localCheckpoint() for side in keys}
    placed = ratings
    for side, rows in index.items():
        placed = placed.join(rows.toDF(side, f"{side}_block", f"{side}_position"), side)
    placed = placed.persist()
    # Cut from their history: Spark walks the plan of all that is cached below a query, each time, for minutes in a fit.
    in_blocks = {
        "user": _in_blocks(placed, "user", "item", user_blocks).localCheckpoint(),
        "item": _in_blocks(placed, "item", "user", item_blocks).localCheckpoint(),
    }
    placed.unpersist()
    sides = []
    for side, other in (("user", "item"), ("item", "user")):
        links = (
            in_blocks[other]
            .select(F.col("block").alias("to"), F.explode("needed").alias("need"))
            .groupBy(F.col("need.block").alias("block"))
            .agg(F.collect_list(F.struct(F.col("to").alias("block"), F.col("need.positions"))).alias("links"))
        )
        # Partitioned by key last, then kept: the solving tasks find the blocks where they are.
        blocks = in_blocks[side].join(links, "block").repartition(len(keys[side]), "block").persist()
        blocks.count()
        sides.append(Side(side, keys[side], index[side], blocks))
    return sides[0], sides[1]


def partition_keys(spark: SparkSession, n: int) -> list[int]:
    """n block keys of which Spark's hash sends each to a partition of its own, of n."""
    candidates = spark.range(0, 20 * n + 100, 1, 1).select("id", F.pmod(F.hash("id"), F.lit(n)).alias("partition"))
    rows = candidates.groupBy("partition").agg(F.min("id").alias("key")).orderBy("partition").collect()
    return [row.key for row in rows]


def _index(ratings: DataFrame, side: str, keys: list[int]) -> DataFrame:
    """Block and position of every user or item: hashed to a block, ascending by id within it."""
    slot = F.pmod(F.xxhash64("id"), F.lit(len(keys))).cast("int")
    key = F.element_at(F.array(*[F.lit(key).cast("long") for key in keys]), slot + 1)
    ids = ratings.select(F.col(side).alias("id")).distinct().withColumn("block", key)
    position = F.row_number().over(Window.partitionBy("block").orderBy("id")) - 1
    return ids.withColumn("position", position.cast("int"))


def _in_blocks(placed: DataFrame, dst: str, src: str, n_blocks: int) -> DataFrame:
    rows = placed.select(
        F.col(f"{dst}_block").alias("block"),
        F.col(dst).alias("id"),
        F.col(f"{dst}_position").alias("position"),
        F.col(f"{src}_block").alias("src_block"),
        F.col(f"{src}_position").alias("src_position"),
        "value",
        "confidence",
    )
    return rows.repartition(n_blocks, "block").groupBy("block").applyInArrow(pack_in_block, IN_BLOCK)
