"""Blockwise weighted alternating least squares on Spark.

    minimise  sum_{observed} c_ui (p_ui - x_u.y_i)^2 + w0 sum_{unobserved} (x_u.y_i)^2
              + sum_u reg_u |x_u|^2 + sum_i reg_i |y_i|^2

with x_u = (Y'C_uY + reg_u I)^-1 Y'C_u p_u, and the same for items (Hu, Koren and Volinsky 2008, eq. 4); w0 = 0 is
ALS-WR for ratings. Blocks of users and items solve in parallel; what they exchange is described in `layout`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from pyspark.sql import DataFrame

from sparkrec.errors import SparkrecError
from sparkrec.progress import track
from sparkrec.spark.algorithms.als.fold import fold_in
from sparkrec.spark.algorithms.als.layout import SIDES, Side, columns_of, lay_out
from sparkrec.spark.algorithms.als.pack import Preference
from sparkrec.spark.algorithms.als.residuals import WithoutBias, residuals, with_bias
from sparkrec.spark.algorithms.als.settings import AlsSettings
from sparkrec.spark.algorithms.als.snapshots import Snapshots, fingerprint
from sparkrec.spark.algorithms.als.solve import SideSolver
from sparkrec.spark.algorithms.bias import biases
from sparkrec.spark.data.fit_inputs import FitInputs
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import DenseRows, all_rows
from sparkrec.spark.platform.failures import mended
from sparkrec.spark.platform.few import from_files, narrowed
from sparkrec.spark.runner import Rows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Factors:
    """Score of a pair: <x_user, y_item>."""

    users: Rows
    """id long, value list<float>, for each user with a rating."""
    items: Rows
    unseen_user: list[float]
    """x of a user without ratings."""
    unseen_item: list[float]
    history: list[dict[str, float]]
    """For each iteration its number, loss, seconds, and kernel_seconds of all tasks together."""


def fit_als(settings: AlsSettings, inputs: FitInputs) -> Model:
    """Factors of all users and items of the dataset."""
    dataset = inputs.dataset
    # The first half-step solves the users; only what does not solve them exactly goes on from what they were.
    sides = SIDES[settings.solver == "cholesky" :] if inputs.warm_start else ()

    def plan(observed: Rows, users: Rows, items: Rows, *earlier: Rows) -> Model:
        warm_start = {side: rows.select("value", id=side) for side, rows in zip(sides, earlier, strict=True)}
        fitted = fit_factors(observed, settings, seed=inputs.seed, scratch=inputs.scratch, warm_start=warm_start)
        x, y = fitted.users.select("value", user="id"), fitted.items.select("value", item="id")
        return Model(
            users=all_rows(users, "user", x, fitted.unseen_user).frame(),
            items=all_rows(items, "item", y, fitted.unseen_item).frame(),
            size=len(fitted.unseen_user),
            user_storage="dense",
            item_storage="dense",
            facts={"history": fitted.history},
        )

    ids = narrowed(dataset.users, "user"), narrowed(dataset.items, "item")
    spark, warm = dataset.users.sparkSession, inputs.warm_start
    earlier = [narrowed(from_files(spark, f"{warm.folder}/{side}s"), side, "value") for side in sides if warm]
    return carry_out("als", plan, columns_of(inputs.observed), *ids, *earlier)


def fold_users(model: Model, settings: AlsSettings, events: DataFrame, observed: DataFrame) -> DataFrame:
    """Rows of the users in `events` (user, item, value, confidence): what fits these best, the items as they are.

    observed  what the model was fitted to, whose items count
    """

    def plan(events: Rows, items: Rows, observed: Rows) -> DataFrame:
        known = items.only(observed, "item").select("value", id="item")
        folded = fold_in(events, known, settings, shift=0.0, own_first=True, preference=None, observed=observed)
        return folded.select("value", user="id").map_rows(DenseRows("user")).frame()

    items = narrowed(model.items, "item", "value")
    return carry_out("als", plan, columns_of(events), items, narrowed(observed, "item"))


def fit_factors(
    ratings: Rows,
    settings: AlsSettings,
    *,
    seed: int,
    scratch: str | None,
    warm_start: Mapping[str, Rows] = {},
    preference: Preference | None = None,
) -> Factors:
    """Factors of ratings (user, item, value, confidence): x and y, or with biases (x, b_u, 1) and (y, 1, mean + b_i).

    Arguments and errors as of `factorize`; `warm_start` may have biases, too.
    """
    zeros = [0.0] * settings.rank
    without = WithoutBias(settings.rank, 1)
    warm_start = {side: rows.map_rows(without).select("id", "value") for side, rows in warm_start.items()}
    solve = partial(
        factorize, settings=settings, seed=seed, scratch=scratch, warm_start=warm_start, preference=preference
    )
    if not settings.biases:
        users, items, history = solve(ratings)
        return Factors(users, items, zeros, zeros, history)
    mean, user_bias, of_items = biases(ratings, settings.bias)
    item_bias = ratings.of(of_items.table("item"))
    users, items, history = solve(residuals(ratings, mean, user_bias, item_bias))
    return Factors(
        with_bias(users, user_bias, "user", 0.0, own_first=True),
        with_bias(items, item_bias, "item", mean, own_first=False),
        [*zeros, 0.0, 1.0],
        [*zeros, 1.0, mean],
        history,
    )


def factorize(
    ratings: Rows,
    settings: AlsSettings,
    *,
    seed: int,
    scratch: str | None,
    warm_start: Mapping[str, Rows] = {},
    preference: Preference | None = None,
) -> tuple[Rows, Rows, list[dict[str, float]]]:
    """User and item factors (id, value list<float>) of ratings (user, item, value, confidence), and what it took.

    warm_start  factors (id, value list<float>) to start from, of `item`, and of `user` where the solver goes on from
                them; items without one start at random
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
        except (SparkrecError, MemoryError):
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
    ratings: Rows
    settings: AlsSettings
    seed: int
    scratch: str | None
    warm_start: Mapping[str, Rows]
    preference: Preference | None

    def attempt(self, reached: list[int]) -> tuple[Rows, Rows, list[dict[str, float]]]:
        """Lay out, resume, iterate; `reached` gets each iteration that is begun."""
        sides = lay_out(self.ratings, self.settings, self.preference)
        try:
            snapshots = Snapshots(self.scratch and f"{self.scratch}/{fingerprint(self.settings, self.seed, sides)}")
            users, items, history = self._iterate(sides, snapshots, reached)
        finally:
            for side in sides:
                side.release()
        snapshots.delete()
        return users, items, history

    def _iterate(
        self, sides: tuple[Side, Side], snapshots: Snapshots, reached: list[int]
    ) -> tuple[Rows, Rows, list[dict[str, float]]]:
        settings = self.settings
        users, items = (SideSolver(side, other.n_ids, settings, self.seed) for side, other in (sides, sides[::-1]))
        done, history, kept = snapshots.resume(self.ratings, settings.iterations)
        kept = {**self.warm_start, **kept}
        if done:
            log.info("als: resuming after iteration %s", done)
        item_state = items.start(kept.get("item"))
        user_state = None
        if users.solver.needs_start:
            user_state = users.start(kept.get("user"))
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
            if iteration and history[-2]["loss"] - loss < settings.tolerance * loss:
                break
            if (iteration + 1) % settings.snapshot_every == 0 and iteration + 1 < settings.iterations:
                factors = {"item": item_state.factors()}
                if users.solver.needs_start:
                    factors["user"] = user_state.factors()
                snapshots.write(iteration + 1, factors, history)
        assert user_state is not None
        return user_state.factors(), item_state.factors(), history
