"""What fitted factors of one side say about the other: folding in, and explanations."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.exported.histories import FoldedIn
from sparkrec.kernels.arrays import F64, I64
from sparkrec.kernels.csr import located
from sparkrec.spark.algorithms.als import block
from sparkrec.spark.algorithms.als.layout import lay_out
from sparkrec.spark.algorithms.als.pack import Preference, Propensity
from sparkrec.spark.algorithms.als.residuals import OwnBias, WithoutBias, residuals, with_bias
from sparkrec.spark.algorithms.als.settings import AlsSettings
from sparkrec.spark.algorithms.als.solve import SideSolver, penalty_of
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.model.explain import CONTRIBUTIONS
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import as_vector
from sparkrec.spark.platform.few import narrowed
from sparkrec.spark.runner import RowFunction, Rows


def fold_in(
    ratings: Rows,
    fixed: Rows,
    settings: AlsSettings,
    *,
    shift: float,
    own_first: bool,
    preference: Preference | None,
    observed: Rows | None = None,
) -> Rows:
    """Factors (id, value) of the users in `ratings` (user, item, value, confidence) from fixed items; or the reverse.

    fixed      (id, value list<float>) of all items, biases with them where the settings have biases
    shift      mean to take off the ratings, besides the bias of the fixed side
    own_first  whether the own bias stands before the 1 in a row with biases, as in those of users
    observed   (item) of all ratings that propensities come from, where the settings have some; None: `ratings`

    Ratings of items that are not in `fixed` tell nothing and are left out; a user with no others has no row. Each gets
    the exact solution (or nonnegative one), whatever solver the fit used.
    """
    solve = partial(_solved, settings=settings, preference=preference, observed=observed)
    if not settings.biases:
        return solve(ratings.only(fixed.select(item="id"), "item"), fixed)
    vectors = fixed.map_rows(WithoutBias(settings.rank, at=1 if own_first else 2))
    item_bias = vectors.select("bias", item="id")
    penalty = settings.bias.user_regularization if own_first else settings.bias.item_regularization
    rated = ratings.select("user", "item", "value").joined(item_bias, "item")
    user_bias = rated.map_sorted(["user"], OwnBias(shift, penalty), then=["item", "value"]).computed()
    folded = solve(residuals(ratings, shift, user_bias, item_bias), vectors.select("id", "value"))
    return with_bias(folded, user_bias, "user", 0.0 if own_first else shift, own_first)


def _solved(
    ratings: Rows, vectors: Rows, settings: AlsSettings, preference: Preference | None, observed: Rows | None
) -> Rows:
    exact = settings.model_copy(update={"solver": "cholesky", "user_blocks": None, "item_blocks": None})
    users, items = lay_out(ratings, exact, preference, observed)
    try:
        src = SideSolver(items, 0, exact, 0).start(vectors)
        n_fixed, gram = _gram(vectors, exact.rank)
        return SideSolver(users, n_fixed, exact, 0).half_step(replace(src, gram=gram), None).factors()
    finally:
        for side in (users, items):
            side.release()


def exported(model: Model, settings: AlsSettings, observed: DataFrame) -> FoldedIn:
    """As `fold_in` of the users of a dataset, without Spark."""

    def plan(items: Rows, observed: Rows) -> FoldedIn:
        fixed = items.only(observed, "item").select("value", id="item")
        if settings.biases:
            fixed = fixed.map_rows(WithoutBias(settings.rank, at=1))
        n_fixed, gram = _gram(fixed, settings.rank)
        penalty = penalty_of(settings, n_fixed)
        return FoldedIn(
            settings.rank,
            settings.unobserved_weight,
            penalty.scale,
            penalty.more,
            penalty.exponent,
            settings.nonnegative,
            settings.bias.user_regularization if settings.biases else None,
            settings.unobserved_weight * gram,
            _propensity_of(np.sort(items.select("item").table()["item"].to_numpy()), observed, settings),
        )

    return carry_out("als", plan, narrowed(model.items, "item", "value"), narrowed(observed, "item"))


def _propensity_of(items: I64, observed: Rows, settings: AlsSettings) -> F64:
    """(m,) by which the confidence of each item is multiplied; of those that nobody has rated 1."""
    weights = np.ones(len(items))
    if settings.propensity_exponent:
        counted = observed.counted("item").table()
        n = counted["n"].to_numpy()
        sizes, times = np.unique(n, return_counts=True)
        propensity = Propensity.over(settings.propensity_exponent, sizes.tolist(), times.tolist())
        at, known = located(counted["item"].to_numpy(), items)
        weights[at[known]] = propensity.weights(n[known])
    return weights


def explain_item(model: Model, dataset: Dataset, user: int, item: int) -> DataFrame:
    """(item, contribution) of the items that a user has in train, and with biases of these, whose item is null."""
    own = as_vector(model.users.where(F.col("user") == user).collect()[0], model.size)
    target = as_vector(model.items.where(F.col("item") == item).collect()[0], model.size)
    rated = dataset.train.where(F.col("user") == user).select("item", "value", "confidence")
    rows = rated.join(model.items.select("item", F.col("value").alias("row")), "item")
    fixed = model.items.join(dataset.fitted("item", False), "item", "left_semi")
    fixed = fixed.select(F.col("item").alias("id"), "value")
    parts = explain(rows, own, target, fixed, cast(AlsSettings, model.settings), None)
    return rated.sparkSession.createDataFrame(parts, CONTRIBUTIONS)


def explain(
    rated: DataFrame,
    own: NDArray[Any],
    target: NDArray[Any],
    fixed: DataFrame,
    settings: AlsSettings,
    preference: Preference | None,
) -> list[tuple[Any, float]]:
    """What each of a user's ratings adds to the score of an item, and with biases they for item None; the largest
    first.

    rated   (item, value, row array<float>, and confidence if there is one): the ratings, and the rows of their items
    own     (d,) row of the user
    target  (d,) row of the item that is explained
    fixed   (id, value array<float>) of all items
    """
    d, rows = settings.rank, rated.toPandas()
    y, p = np.array(rows["row"].tolist()).reshape(len(rows), len(target)), rows["value"].to_numpy(np.float64)
    confidence = rows["confidence"].to_numpy(np.float64) if "confidence" in rows else np.ones(len(p))
    if preference is not None:
        p, implied = preference.of(p)
        confidence = confidence if "confidence" in rows else implied
    if settings.biases:
        p = p - y[:, -1] - own[-2]
    terms = _contributions(y[:, :d], p, confidence, target[:d], fixed, settings)
    explained = [*zip(rows["item"].tolist(), terms.tolist(), strict=True)]
    if settings.biases:
        explained.append((None, float(target[-1] + own[-2])))
    return sorted(explained, key=lambda each: -each[1])


def _contributions(
    y: NDArray[Any], p: NDArray[Any], c: NDArray[Any], target: NDArray[Any], fixed: DataFrame, settings: AlsSettings
) -> F64:
    """What each of a user's ratings adds to the score of an item (Hu et al. 2008, section 5), (n,) float64.

    y, p, c  (n, rank), (n,), (n,): factors of the rated items, targets, confidences
    target   (rank,) factors of the item that is explained
    fixed    (id, value array<float>) of all items
    """
    vectors = fixed.select(F.slice("value", 1, settings.rank).alias("value"))
    n_fixed, gram = carry_out("als", partial(_gram, d=settings.rank), vectors)
    w0 = settings.unobserved_weight
    n = len(p) if w0 == 0 else int((p > 0).sum())
    reg = penalty_of(settings, n_fixed)(np.array([n]))[0]
    system = w0 * gram + (y.T * (c - w0)) @ y + reg * np.eye(len(target))
    return np.asarray(c * p * (y @ np.linalg.solve(system, target)), np.float64)


def _gram(vectors: Rows, d: int) -> tuple[int, F64]:
    """How many rows (value array<float>) there are, and their gram."""
    sums = vectors.select("value").map_rows(RowFunction(block.GRAM, block.grams)).table()
    grams = [np.frombuffer(gram) for gram in sums["gram"].to_pylist()]
    return sum(sums["n"].to_pylist()), np.sum(grams, axis=0).reshape(d, d)
