"""Blockwise weighted alternating least squares on Spark.

    minimise  sum_{observed} c_ui (p_ui - x_u.y_i)^2 + w0 sum_{unobserved} (x_u.y_i)^2
              + sum_u reg_u |x_u|^2 + sum_i reg_i |y_i|^2

with x_u = (Y'C_uY + reg_u I)^-1 Y'C_u p_u, and the same for items (Hu, Koren and Volinsky 2008, eq. 4); w0 = 0 is
ALS-WR for ratings. Blocks of users and items solve in parallel; what they exchange is described in `layout`.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.errors import SparkrecError
from sparkrec.progress import track
from sparkrec.spark.algorithms.als.fold import fold_in
from sparkrec.spark.algorithms.als.layout import Side, columns_of, lay_out
from sparkrec.spark.algorithms.als.pack import Preference
from sparkrec.spark.algorithms.als.settings import AlsSettings
from sparkrec.spark.algorithms.als.snapshots import Snapshots, fingerprint
from sparkrec.spark.algorithms.als.solve import SideSolver
from sparkrec.spark.algorithms.bias import biases
from sparkrec.spark.data.fit_inputs import FitInputs
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import dense_of_all, dense_vectors, with_tail
from sparkrec.spark.platform.failures import mended
from sparkrec.spark.runner import Rows

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


def fit_als(settings: AlsSettings, inputs: FitInputs) -> Model:
    """Factors of all users and items of the dataset."""
    dataset = inputs.dataset
    fitted = fit_factors(inputs.observed, settings, seed=inputs.seed, scratch=inputs.scratch)

    return Model(
        users=dense_of_all(dataset.users, "user", fitted.users, fitted.unseen_user),
        items=dense_of_all(dataset.items, "item", fitted.items, fitted.unseen_item),
        size=len(fitted.unseen_user),
        user_storage="dense",
        item_storage="dense",
        facts={"history": fitted.history},
    )


def fold_users(model: Model, settings: AlsSettings, events: DataFrame, observed: DataFrame) -> DataFrame:
    """Rows of the users in `events` (user, item, value, confidence): what fits these best, the items as they are.

    observed  what the model was fitted to, whose items count
    """
    known = model.items.join(observed.select("item").distinct(), "item", "left_semi")
    fixed = known.select(F.col("item").alias("id"), "value")
    columns = events.select("user", "item", "value", "confidence")
    folded = fold_in(columns, fixed, settings, shift=0.0, own_first=True, preference=None, observed=observed)
    return dense_vectors(folded.toDF("user", "value"), "user")


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
        with_tail(users, user_bias, user_tail),
        with_tail(items, item_bias, item_tail),
        [*zeros, 0.0, 1.0],
        [*zeros, 1.0, mean],
        history,
    )


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
    fit = _Fit(ratings, settings, seed, scratch, warm_start, preference)
    failed_after = None
    while True:
        reached: list[int] = []
        try:
            return fit.attempt(reached)
        except SparkrecError:
            raise
        except Exception as error:
            if (known := mended(error)) is not None:
                raise known from None
            if failed_after == reached[-1:]:  # no progress since: not an executor that died
                raise
            failed_after = reached[-1:]
            log.warning("als: %s. Beginning again from the last snapshot.", str(error).strip().split("\n")[0][:300])


@dataclass(frozen=True)
class _Fit:
    ratings: DataFrame
    settings: AlsSettings
    seed: int
    scratch: str | None
    warm_start: DataFrame | None
    preference: Preference | None

    def attempt(self, reached: list[int]) -> tuple[DataFrame, DataFrame, list[dict[str, float]]]:
        """Lay out, resume, iterate; `reached` gets each iteration that is begun."""
        return carry_out("als", partial(self._attempt, reached), columns_of(self.ratings))

    def _attempt(self, reached: list[int], ratings: Rows) -> tuple[DataFrame, DataFrame, list[dict[str, float]]]:
        sides = lay_out(ratings, self.settings, self.preference)
        try:
            snapshots = Snapshots(self.scratch and f"{self.scratch}/{fingerprint(self.settings, self.seed, sides)}")
            users, items, history = self._iterate(ratings, sides, snapshots, reached)
        finally:
            for side in sides:
                side.release()
        snapshots.delete()
        return users.frame(), items.frame(), history

    def _iterate(
        self, ratings: Rows, sides: tuple[Side, Side], snapshots: Snapshots, reached: list[int]
    ) -> tuple[Rows, Rows, list[dict[str, float]]]:
        settings = self.settings
        users, items = (SideSolver(side, other.n_ids, settings, self.seed) for side, other in (sides, sides[::-1]))
        done, history, kept = snapshots.resume(ratings.spark, settings.iterations)
        if done:
            log.info("als: resuming after iteration %s", done)
        begun = kept.get("item", self.warm_start)
        item_state = items.start(None if begun is None else ratings.of(begun))
        user_state = None
        if users.solver.needs_start:
            user_state = users.start(ratings.of(kept["user"]) if "user" in kept else None)
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
                factors = {"item": item_state.factors()}
                if users.solver.needs_start:
                    factors["user"] = user_state.factors()
                snapshots.write(iteration + 1, factors, history)
        assert user_state is not None
        return user_state.factors(), item_state.factors(), history
