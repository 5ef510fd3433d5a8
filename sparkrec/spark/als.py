"""Blockwise weighted alternating least squares on Spark.

    minimise  sum_{observed} c_ui (p_ui - x_u.y_i)^2 + w0 sum_{unobserved} (x_u.y_i)^2
              + sum_u reg_u |x_u|^2 + sum_i reg_i |y_i|^2

with x_u = (Y'C_uY + reg_u I)^-1 Y'C_u p_u, and the same for items (Hu, Koren and Volinsky 2008, eq. 4); w0 = 0 is
ALS-WR for ratings. Blocks of users and items solve in parallel; what they exchange is described in `als_layout`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame, GroupedData, Row, SparkSession
from pyspark.sql import functions as F

from sparkrec.config import AlsSettings
from sparkrec.errors import SparkrecError, TrainError
from sparkrec.kernels import als as kernel
from sparkrec.kernels.arrays import F32, F64, I64
from sparkrec.kernels.random import normal_rows
from sparkrec.spark import als_block, storage
from sparkrec.spark.als_block import Preference
from sparkrec.spark.als_layout import Side, ddl, lay_out
from sparkrec.spark.bias import biases
from sparkrec.spark.dataset import Dataset
from sparkrec.spark.model import Model
from sparkrec.spark.progress import track

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Factors:
    """Score of a pair: <x_user, y_item>."""

    users: DataFrame
    """id long, value array<float>, for each user with a rating."""
    items: DataFrame
    unseen_user: list[float]
    """x of a user without ratings."""
    unseen_item: list[float]
    history: list[dict[str, float]]
    """For each iteration its number, loss, seconds, and kernel_seconds of all tasks together."""


def fit_als(settings: AlsSettings, dataset: Dataset, observed: DataFrame, *, seed: int, scratch: str) -> Model:
    """Factors of all users and items of the dataset."""
    fitted = fit_factors(observed, settings, seed=seed, scratch=scratch)

    def rows(ids: DataFrame, key: str, factors: DataFrame, unseen: list[float]) -> DataFrame:
        value = F.coalesce("value", F.array(*map(F.lit, unseen)).cast("array<float>"))
        every = ids.select(key).join(factors.toDF(key, "value"), key, "left")
        return every.select(key, F.lit(None).cast("array<int>").alias("index"), value.alias("value"))

    return Model(
        users=rows(dataset.users, "user", fitted.users, fitted.unseen_user),
        items=rows(dataset.items, "item", fitted.items, fitted.unseen_item),
        size=len(fitted.unseen_user),
        user_layout="dense",
        item_layout="dense",
        facts={"history": fitted.history},
    )


def fit_factors(
    ratings: DataFrame,
    settings: AlsSettings,
    *,
    seed: int,
    scratch: str | None,
    warm_start: DataFrame | None = None,
    preference: Preference | None = None,
) -> Factors:
    """Factors of ratings (user, item, value, confidence): x and y, or with biases (x, b_u, 1) and (y, 1, mean + b_i).

    Arguments and errors as of `factorize`; `warm_start` may have biases, too.
    """
    zeros = [0.0] * settings.rank
    if warm_start is not None:
        warm_start = warm_start.select("id", F.slice("value", 1, settings.rank).alias("value"))
    solve = partial(
        factorize, settings=settings, seed=seed, scratch=scratch, warm_start=warm_start, preference=preference
    )
    if not settings.biases:
        users, items, history = solve(ratings)
        return Factors(users, items, zeros, zeros, history)
    mean, user_bias, item_bias = biases(ratings, settings.bias)
    user_bias, item_bias = user_bias.persist(), item_bias.persist()
    residual = F.col("value") - mean - F.col("user_bias") - F.col("item_bias")
    left = (
        ratings.join(user_bias.toDF("user", "user_bias"), "user")
        .join(item_bias.toDF("item", "item_bias"), "item")
        .withColumn("value", residual.cast("float"))
        .drop("user_bias", "item_bias")
    )
    users, items, history = solve(left)
    user_tail, item_tail = F.array("bias", F.lit(1.0)), F.array(F.lit(1.0), F.lit(mean) + F.col("bias"))
    return Factors(
        _with_tail(users, user_bias, user_tail),
        _with_tail(items, item_bias, item_tail),
        [*zeros, 0.0, 1.0],
        [*zeros, 1.0, mean],
        history,
    )


def fold_in(
    ratings: DataFrame,
    fixed: DataFrame,
    settings: AlsSettings,
    *,
    shift: float,
    own_first: bool,
    preference: Preference | None,
) -> DataFrame:
    """Factors (id, value) of the users in `ratings` (user, item, value, confidence) from fixed items; or the reverse.

    fixed      (id, value array<float>) of all items, biases with them where the settings have biases
    shift      mean to take off the ratings, besides the bias of the fixed side
    own_first  whether the own bias stands before the 1 in a row with biases, as in those of users

    Ratings of items that are not in `fixed` tell nothing and are left out; a user with no others has no row. Each gets
    the exact solution (or nonnegative one), whatever solver the fit used.
    """
    d = settings.rank
    ratings = ratings.join(fixed.select(F.col("id").alias("item"), F.col("value").alias("row")), "item")
    bias = None
    if settings.biases:
        offset = F.element_at("row", d + 2 if own_first else d + 1) + F.lit(shift)
        ratings = ratings.withColumn("value", F.col("value") - offset)
        penalty = settings.bias.user_regularization if own_first else settings.bias.item_regularization
        solution = F.sum("value") / (F.count("*") + penalty)
        bias = ratings.groupBy("user").agg(solution.alias("bias")).persist()
        ratings = ratings.join(bias, "user").withColumn("value", F.col("value") - F.col("bias"))
    exact = settings.model_copy(update={"solver": "cholesky"})
    users, items = lay_out(ratings.drop("row", "bias"), d, None, None, preference)
    vectors = fixed.select("id", F.slice("value", 1, d).alias("value"))
    src = _Solving(items, 0, exact, 0).start(vectors)
    n_fixed, gram = _gram(vectors, d)
    folded = _Solving(users, n_fixed, exact, 0).half_step(replace(src, gram=gram), None).factors()
    if bias is None:
        return folded
    own, one = F.col("bias") + (0.0 if own_first else shift), F.lit(1.0)
    return _with_tail(folded, bias, F.array(own, one) if own_first else F.array(one, own))


def contributions(
    y: NDArray[Any], p: NDArray[Any], c: NDArray[Any], target: NDArray[Any], fixed: DataFrame, settings: AlsSettings
) -> F64:
    """What each of a user's ratings adds to the score of an item (Hu et al. 2008, section 5), (n,) float64.

    y, p, c  (n, rank), (n,), (n,): factors of the rated items, targets, confidences
    target   (rank,) factors of the item that is explained
    fixed    (id, value array<float>) of all items
    """
    n_fixed, gram = _gram(fixed.select(F.slice("value", 1, settings.rank).alias("value")), settings.rank)
    w0 = settings.unobserved_weight
    n = len(p) if w0 == 0 else int((p > 0).sum())
    reg = penalty_of(settings, n_fixed)(np.array([n]))[0]
    system = w0 * gram + (y.T * (c - w0)) @ y + reg * np.eye(len(target))
    return np.asarray(c * p * (y @ np.linalg.solve(system, target)), np.float64)


def _gram(vectors: DataFrame, d: int) -> tuple[int, F64]:
    """How many rows (value array<float>) there are, and their gram."""
    sums = vectors.select("value").mapInArrow(als_block.grams, "n long, gram binary").collect()
    return sum(row.n for row in sums), np.sum([np.frombuffer(row.gram) for row in sums], axis=0).reshape(d, d)


def _with_tail(factors: DataFrame, biases: DataFrame, tail: Column) -> DataFrame:
    value = F.concat("value", tail.cast("array<float>"))
    return factors.join(biases.toDF("id", "bias"), "id").select("id", value.alias("value"))


def factorize(
    ratings: DataFrame,
    settings: AlsSettings,
    *,
    seed: int,
    scratch: str | None,
    warm_start: DataFrame | None = None,
    preference: Preference | None = None,
) -> tuple[DataFrame, DataFrame, list[dict[str, float]]]:
    """User and item factors (id, value array<float>) of ratings (user, item, value, confidence), and what it took.

    warm_start  item factors (id, value array<float>) to start from; items without one start at random
    preference  makes of the values targets and confidences; without it, and without a confidence column, that is 1
    The third is for each iteration its number, loss, seconds, and kernel_seconds summed over all tasks.

    Resumes from the last snapshot of the same fit under `scratch`, a folder; None: keeps none. What an executor takes
    with it when it dies is made again, from there. Deterministic for a seed; another number of blocks changes the order
    of sums only. Raises TrainError naming the user or item whose system has no solution.
    """
    failed_after = None
    while True:
        done: list[int] = []
        try:
            return _attempt(ratings, settings, seed, scratch, warm_start, preference, done)
        except SparkrecError:
            raise
        except Exception as error:
            reached = done[-1] if done else -1
            if failed_after == reached:  # no progress since: not an executor that died
                raise
            failed_after = reached
            log.warning("als: %s. Beginning again from the last snapshot.", str(error).strip().split("\n")[0][:300])


def _attempt(
    ratings: DataFrame,
    settings: AlsSettings,
    seed: int,
    scratch: str | None,
    warm_start: DataFrame | None,
    preference: Preference | None,
    reached: list[int],
) -> tuple[DataFrame, DataFrame, list[dict[str, float]]]:
    sides = lay_out(ratings, settings.rank, settings.user_blocks, settings.item_blocks, preference)
    try:
        snapshots = _Snapshots(scratch and f"{scratch}/{_fingerprint(settings, seed, sides)}")
        result = _iterate(sides, settings, seed, snapshots, warm_start, reached)
    finally:
        for side in sides:
            side.unpersist()
    snapshots.delete()
    return result


def _iterate(
    sides: tuple[Side, Side],
    settings: AlsSettings,
    seed: int,
    snapshots: _Snapshots,
    warm_start: DataFrame | None,
    reached: list[int],
) -> tuple[DataFrame, DataFrame, list[dict[str, float]]]:
    users, items = (_Solving(side, other.n_ids, settings, seed) for side, other in (sides, sides[::-1]))
    spark = users.side.blocks.sparkSession
    done, history = snapshots.resume()
    if done:
        log.info("als: resuming after iteration %s", done)
    item_state = items.start(snapshots.factors(spark, "item") or warm_start)
    user_state = users.start(snapshots.factors(spark, "user")) if users.solver.needs_start else None
    for iteration in track(range(done, settings.iterations), "als", done, settings.iterations):
        reached.append(iteration)
        started = time.perf_counter()
        user_state = users.half_step(item_state, user_state)
        item_state = items.half_step(user_state, item_state)
        seconds = time.perf_counter() - started
        # The errors as the second half-step left them, and both penalties.
        loss = item_state.loss + user_state.penalty + item_state.penalty
        history.append(
            {
                "iteration": iteration + 1,
                "loss": loss,
                "seconds": round(seconds, 3),
                "kernel_seconds": round(user_state.seconds + item_state.seconds, 3),
            }
        )
        log.info("als: iteration %s/%s, loss %.6g, %.1f s", iteration + 1, settings.iterations, loss, seconds)
        if (iteration + 1) % settings.snapshot_every == 0 and iteration + 1 < settings.iterations:
            kept = {"item": item_state, "user": user_state} if users.solver.needs_start else {"item": item_state}
            snapshots.write(iteration + 1, {side: state.factors() for side, state in kept.items()}, history)
    assert user_state is not None
    return user_state.factors(), item_state.factors(), history


@dataclass(frozen=True)
class _State:
    """One side, solved: rows of STATE, the factors of the split ids, and the sums over all."""

    frame: DataFrame
    split_ids: I64
    split: F32
    gram: F64
    loss: float = 0.0
    penalty: float = 0.0
    seconds: float = 0.0
    """In kernels, all tasks together."""

    def factors(self) -> DataFrame:
        """A row (id, value array<float>) for each id."""
        blocks = self.frame.where("ids IS NOT NULL").select("ids", "factors")
        factors = blocks.mapInArrow(als_block.unpack, _FACTORS)
        if len(self.split_ids) == 0:
            return factors
        rows = [(int(key), row.tolist()) for key, row in zip(self.split_ids, self.split, strict=True)]
        return factors.unionByName(self.frame.sparkSession.createDataFrame(rows, _FACTORS))

    def messages(self) -> DataFrame:
        return self.frame.where("to IS NOT NULL").select(
            F.col("to").alias("block"), F.col("block").alias("src_block"), F.col("factors").alias("src_factors")
        )

    def as_start(self) -> DataFrame:
        """The factors of every block, for a solver that goes on from them."""
        blocks = self.frame.where("ids IS NOT NULL")
        return blocks.select("block", F.col("ids").alias("start_ids"), F.col("factors").alias("start"))


_FACTORS = "id long, value array<float>"
_START = "block long, start_ids binary, start binary"


@dataclass(frozen=True)
class _Solving:
    """How one side is solved."""

    side: Side
    n_src: int
    settings: AlsSettings
    seed: int

    @property
    def solver(self) -> kernel.Solver:
        settings = self.settings
        if settings.nonnegative:
            return kernel.Solver("nonnegative")
        if settings.solver == "ials++":
            return kernel.Solver("coordinate", width=settings.coordinates)
        return kernel.Solver(settings.solver, steps=settings.cg_steps)

    def start(self, given: DataFrame | None) -> _State:
        """The factors before the first iteration: given ones (id, value), and random ones for the other ids."""
        settings, plan, spark = self.settings, self.side.plan, self.side.blocks.sparkSession
        scale = settings.init_scale / np.sqrt(settings.rank)
        split = (scale * normal_rows(self.seed, plan.split, settings.rank)).astype(np.float32)
        if given is None:
            placed = spark.createDataFrame([], _START)
        else:
            placed = given.select("id", "value").mapInArrow(als_block.place(plan), _START)
            placed = placed.where(F.col("block").isin(sorted(self.side.keys)))
            if len(plan.split):
                for row in given.where(F.col("id").isin(plan.split.tolist())).collect():
                    split[plan.split_at(np.array([row["id"]]))] = row["value"]
        starter = als_block.starter(settings.rank, scale, self.seed)
        return self._state(self.side.without_ratings(placed), starter, lambda pieces: (split, 0.0, 0.0))

    def half_step(self, src: _State, before: _State | None) -> _State:
        """Solve every block from the messages to it, and the split ids here. Raises TrainError."""
        settings, solver = self.settings, self.solver
        step = als_block.HalfStep(
            rank=settings.rank,
            unobserved_weight=settings.unobserved_weight,
            penalty=penalty_of(settings, self.n_src),
            solver=solver,
            gram=src.gram * settings.unobserved_weight,
            split_ids=src.split_ids,
            split=src.split,
        )
        others = src.messages()
        if solver.needs_start and before is not None:
            others = others.unionByName(before.as_start(), allowMissingColumns=True)
        start = before.split if before else None
        blocks = self.side.with_ratings(others)
        return self._state(blocks, als_block.solver(step), lambda pieces: _solve_split(step, pieces, start))

    def _state(
        self,
        blocks: GroupedData,
        task: Callable[[pa.Table], pa.Table],
        solve_split: Callable[[list[Row]], tuple[F32, float, float]],
    ) -> _State:
        """Run `task` on every block, computed once and cut from its history."""
        frame = blocks.applyInArrow(task, ddl(als_block.STATE)).localCheckpoint(eager=False)
        rows = frame.where("to IS NULL").drop("to", "ids", "factors").collect()
        if failures := sorted(row.failure for row in rows if row.failure):
            raise TrainError(failures[0])
        sums = sorted((row for row in rows if row.split is None), key=lambda row: row.block)  # for one order of sums
        if sorted(row.block for row in sums) != sorted(self.side.keys):
            found = [row.block for row in sums]
            raise RuntimeError(f"als: solved blocks {found}, expected {sorted(self.side.keys)}")
        pieces = sorted((row for row in rows if row.split is not None), key=lambda row: (row.split, row.block))
        split, loss, penalty = solve_split(pieces)
        return _State(
            frame,
            self.side.plan.split,
            split,
            np.sum([np.frombuffer(row.gram) for row in sums], axis=0).reshape(2 * (self.settings.rank,))
            + kernel.gram(split),
            loss + math.fsum(row.loss for row in sums),
            penalty + math.fsum(row.penalty for row in sums),
            math.fsum(row.seconds for row in sums),
        )


def penalty_of(settings: AlsSettings, n_src: int) -> als_block.Penalty:
    """reg_u of rows by their number of ratings; `n_src` is the size of the other side."""
    more = settings.unobserved_weight * n_src if settings.regularization_scaling == "ials" else 0.0
    return als_block.Penalty(settings.regularization, more, settings.regularization_exponent)


def _solve_split(step: als_block.HalfStep, pieces: list[Row], start: F32 | None) -> tuple[F32, float, float]:
    """Factors of the ids that are split, their squared errors and penalty, from the pieces of their systems."""
    factors, losses, penalties = [], [], []
    for at, (key, group) in enumerate(groupby(pieces, key=lambda row: row.split)):
        mine = list(group)
        a = np.sum([np.frombuffer(row.a) for row in mine], axis=0).reshape(2 * (step.rank,)) + step.gram
        b = np.sum([np.frombuffer(row.b) for row in mine], axis=0)
        n = sum(row.n for row in mine)
        reg = float(step.penalty(np.array([n]))[0])
        try:
            x = kernel.solve(a, b, reg, step.solver, None if start is None else start[at])
        except kernel.SingularSystem as error:
            raise TrainError(als_block.failure(key, n, error)) from None
        factors.append(x.astype(np.float32))
        losses.append(float(x @ a @ x - 2 * b @ x) + math.fsum(row.loss for row in mine))
        penalties.append(reg * float(x @ x))
    return np.array(factors, np.float32).reshape(-1, step.rank), math.fsum(losses), math.fsum(penalties)


def _fingerprint(settings: AlsSettings, seed: int, sides: tuple[Side, Side]) -> str:
    """Names a fit, whatever its blocks: a snapshot of other ratings or settings is not one to go on from."""
    same = settings.model_dump(mode="json", exclude={"user_blocks", "item_blocks", "iterations", "snapshot_every"})
    digest = hashlib.sha256(json.dumps([same, seed], sort_keys=True).encode())
    for side in sides:
        digest.update(side.counts.tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class _Snapshots:
    """Factors every few iterations: all that the next iteration needs. The manifest comes last."""

    folder: str | None
    """None: nothing is kept."""

    def write(self, iteration: int, factors: dict[str, DataFrame], history: list[dict[str, float]]) -> None:
        if self.folder is None:
            return
        for side, frame in factors.items():
            frame.write.mode("overwrite").parquet(self._path(iteration, side))
        manifest = {"iteration": iteration, "sides": sorted(factors), "history": history}
        storage.write_json(self._path(iteration, "manifest.json"), manifest)

    def resume(self) -> tuple[int, list[dict[str, float]]]:
        """Iterations done and their history."""
        last = self._last()
        return (last["iteration"], last["history"]) if last else (0, [])

    def factors(self, spark: SparkSession, side: str) -> DataFrame | None:
        """The factors of a side to go on from."""
        last = self._last()
        return spark.read.parquet(self._path(last["iteration"], side)) if last and side in last["sides"] else None

    def delete(self) -> None:
        """What has been finished needs them no more."""
        if self.folder is not None:
            storage.delete(self.folder)

    def _last(self) -> dict[str, Any] | None:
        if self.folder is None:
            return None
        found = [storage.read_json(f"{self.folder}/{name}/manifest.json") for name in storage.folders(self.folder)]
        return max((each for each in found if each), key=lambda each: each["iteration"], default=None)

    def _path(self, iteration: int, name: str) -> str:
        return f"{self.folder}/iteration-{iteration:05d}/{name}"
