"""Blockwise weighted alternating least squares on Spark.

    minimise  sum_{observed} c_ui (p_ui - x_u.y_i)^2 + w0 sum_{unobserved} (x_u.y_i)^2
              + sum_u reg_u |x_u|^2 + sum_i reg_i |y_i|^2

with x_u = (Y'C_uY + reg_u I)^-1 Y'C_u p_u, and the same for items (Hu, Koren and Volinsky 2008, eq. 4); w0 = 0 is
ALS-WR for ratings. Blocks of users and items solve in parallel; what they exchange is described in `als_layout`.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.config import AlsSettings
from sparkrec.errors import TrainError
from sparkrec.spark import storage
from sparkrec.spark.als_block import STATE, restorer, solver, starter, unpack
from sparkrec.spark.als_layout import Side, lay_out
from sparkrec.spark.bias import biases
from sparkrec.spark.dataset import Dataset
from sparkrec.spark.model import Model
from sparkrec.spark.progress import track

log = logging.getLogger(__name__)

RATINGS_PER_BLOCK = 4_000_000
"""About 64 MB of in-block: a task holds a few times that."""


def fit_als(settings: AlsSettings, dataset: Dataset, observed: DataFrame, *, seed: int, scratch: str) -> Model:
    """Factors of all users and items of the dataset; those without observed rows are zero."""
    mean, user_bias, item_bias = 0.0, None, None
    ratings = observed.select("user", "item", "value", "confidence")
    if settings.biases:
        mean, user_bias, item_bias = biases(observed, settings.bias)
        user_bias, item_bias = user_bias.persist(), item_bias.persist()
        residual = F.col("value") - mean - F.col("user_bias") - F.col("item_bias")
        ratings = (
            ratings.join(user_bias.withColumnRenamed("bias", "user_bias"), "user")
            .join(item_bias.withColumnRenamed("bias", "item_bias"), "item")
            .select("user", "item", residual.cast("float").alias("value"), "confidence")
        )
    user_factors, item_factors, history = factorize(ratings, settings, seed=seed, scratch=scratch)
    d = settings.rank
    users = dataset.users.select("user").join(user_factors.toDF("user", "value"), "user", "left")
    items = dataset.items.select("item").join(item_factors.toDF("item", "value"), "item", "left")
    empty = F.array_repeat(F.lit(0.0).cast("float"), d)
    if user_bias is not None and item_bias is not None:
        # <(x, b_u, 1), (y, 1, mean + b_i)>
        one, zero = F.lit(1.0), F.lit(0.0)
        users = users.join(user_bias, "user", "left")
        items = items.join(item_bias, "item", "left")
        user_tail = F.array(F.coalesce("bias", zero), one)
        item_tail = F.array(one, F.lit(mean) + F.coalesce("bias", zero))
        users = users.withColumn("value", F.concat(F.coalesce("value", empty), user_tail).cast("array<float>"))
        items = items.withColumn("value", F.concat(F.coalesce("value", empty), item_tail).cast("array<float>"))
        d += 2
    none = F.lit(None).cast("array<int>").alias("index")
    return Model(
        users=users.select("user", none, F.coalesce("value", empty).alias("value")),
        items=items.select("item", none, F.coalesce("value", empty).alias("value")),
        size=d,
        user_layout="dense",
        item_layout="dense",
        facts={"history": history},
    )


def factorize(
    ratings: DataFrame, settings: AlsSettings, *, seed: int, scratch: str
) -> tuple[DataFrame, DataFrame, list[dict[str, float]]]:
    """User and item factors (id, array<float>) of ratings (user, item, value, confidence), and the loss by iteration.

    Resumes from the last snapshot under `scratch`. Deterministic for a seed; another number of blocks changes the
    order of sums only. Raises TrainError naming the user or item whose system has no solution.
    """
    automatic = _block_count(ratings)
    users, items = lay_out(ratings, settings.user_blocks or automatic, settings.item_blocks or automatic)
    counts = {side.name: side.index.count() for side in (users, items)}
    log.info("als: %(user)s users, %(item)s items laid out", counts)
    snapshots = _Snapshots(items, scratch)
    done, history, item_state = snapshots.resume(settings.rank)
    if item_state is None:
        scale = settings.init_scale / np.sqrt(settings.rank)
        item_state = _State.compute(items.blocks.mapInArrow(starter(settings.rank, scale, seed), STATE))
    else:
        log.info("als: resuming after iteration %s", done)
    user_state = None
    for iteration in track(range(done, settings.iterations), "als", done, settings.iterations):
        started = time.perf_counter()
        previous = (user_state, item_state)
        user_state = _half_step(users, item_state, settings, counts["item"])
        item_state = _half_step(items, user_state, settings, counts["user"])
        for state in previous:
            if state is not None:
                state.frame.unpersist()
        # The errors as the second half-step left them, and both penalties.
        loss = item_state.loss + user_state.penalty + item_state.penalty
        seconds = time.perf_counter() - started
        history.append({"iteration": iteration + 1, "loss": loss, "seconds": round(seconds, 3)})
        log.info("als: iteration %s/%s, loss %.6g, %.1f s", iteration + 1, settings.iterations, loss, seconds)
        if (iteration + 1) % settings.snapshot_every == 0 and iteration + 1 < settings.iterations:
            snapshots.write(iteration + 1, item_state, history)
    assert user_state is not None
    for side in (users, items):
        side.blocks.unpersist()
    return user_state.factors(), item_state.factors(), history


def _block_count(ratings: DataFrame) -> int:
    tasks = int(ratings.sparkSession.conf.get("spark.sql.shuffle.partitions", "8") or 8)
    return max(tasks, -(-ratings.count() // RATINGS_PER_BLOCK))


@dataclass(frozen=True)
class _State:
    """All blocks of one side, solved: rows of STATE, and their sums."""

    frame: DataFrame
    gram: np.ndarray
    loss: float
    penalty: float

    @classmethod
    def compute(cls, solved: DataFrame) -> _State:
        """Computed and cut from its history. Raises TrainError with the message of a block that failed."""
        frame = solved.localCheckpoint(eager=True)
        sums = frame.where("to IS NULL").select("block", "gram", "loss", "penalty", "failure").collect()
        if failures := sorted(row.failure for row in sums if row.failure):
            raise TrainError(failures[0])
        sums.sort(key=lambda row: row.block)  # for the sums not to depend on which block came first
        gram = np.sum([np.frombuffer(row.gram) for row in sums], axis=0)
        rank = math.isqrt(len(gram))
        loss, penalty = (math.fsum(column) for column in zip(*((row.loss, row.penalty) for row in sums), strict=True))
        return cls(frame, gram.reshape(rank, rank), loss, penalty)

    def factors(self) -> DataFrame:
        """A row (id, value array<float>) for each id."""
        blocks = self.frame.where("to IS NULL").select("ids", "factors")
        return blocks.mapInArrow(unpack, "id long, value array<float>")


def _half_step(dst: Side, src: _State, settings: AlsSettings, n_src: int) -> _State:
    """Solve every block of `dst` from the messages to it."""
    messages = src.frame.where("to IS NOT NULL").select(
        F.col("to").alias("block"),
        F.col("block").alias("src_block"),
        F.col("factors").alias("src_factors"),
    )
    # A block is a row with its layout, a message a row without: grouped by block, each comes to its solver. Spark 4.1
    # and later see that both sides of the union lie in the same partitions and leave the layout where it is; an
    # optimiser that does not see it moves the layout too, which is slower and as right.
    rows = dst.blocks.unionByName(messages.repartition(dst.n_partitions, "block"), allowMissingColumns=True)
    gram = src.gram * settings.unobserved_weight
    return _State.compute(rows.groupBy("block").applyInArrow(solver(settings, gram, n_src), STATE))


@dataclass(frozen=True)
class _Snapshots:
    """Item factors every few iterations: all that the next iteration needs. The manifest comes last."""

    items: Side
    scratch: str

    def write(self, iteration: int, item_state: _State, history: list[dict[str, float]]) -> None:
        folder = f"{self.scratch}/iteration-{iteration:05d}"
        item_state.factors().write.mode("overwrite").parquet(f"{folder}/items")
        storage.write_json(f"{folder}/manifest.json", {"iteration": iteration, "history": history})

    def resume(self, rank: int) -> tuple[int, list[dict[str, float]], _State | None]:
        """Iterations done, their history, and the item state to go on from; (0, [], None) without a snapshot."""
        found = [storage.read_json(f"{self.scratch}/{name}/manifest.json") for name in storage.folders(self.scratch)]
        last = max((each for each in found if each), key=lambda each: each["iteration"], default=None)
        if last is None:
            return 0, [], None
        spark = self.items.blocks.sparkSession
        factors = spark.read.parquet(f"{self.scratch}/iteration-{last['iteration']:05d}/items")
        placed = self.items.index.join(factors, "id").select("block", F.col("position"), "value")
        rows = self.items.blocks.unionByName(placed, allowMissingColumns=True)
        keyed = rows.repartition(self.items.n_partitions, "block").groupBy("block")
        return last["iteration"], last["history"], _State.compute(keyed.applyInArrow(restorer(rank), STATE))
