"""Ridge regression of the rating on attributes of user and item: the baseline that knows nothing of taste."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.config.features import AttributeSettings
from sparkrec.config.model import Declaration, ModelSettings
from sparkrec.errors import TrainError
from sparkrec.spark.data.attributes import encode
from sparkrec.spark.data.fit_inputs import FitInputs
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import sum_of_parts
from sparkrec.spark.platform.before_spark_4 import from_arrow, to_arrow
from sparkrec.spark.platform.keeping import kept, release

Matrix = NDArray[np.float64]


class LinearSettings(ModelSettings):
    """Ridge regression on user and item attributes: the baseline that knows nothing of the person."""

    kind: Literal["linear"] = "linear"
    users: AttributeSettings | None = None
    """Attributes of users. None: none."""
    items: AttributeSettings | None = None
    """Attributes of items. None: none."""
    regularization: float = Field(1.0, ge=0)
    """L2 on the coefficients."""

    @model_validator(mode="after")
    def _has_attributes(self) -> LinearSettings:
        if self.users is None and self.items is None:
            raise ValueError("linear has no attributes to work with: set model.users, model.items or both")
        return self

    @property
    def attributes(self) -> dict[str, AttributeSettings]:
        return {side: table for side, table in (("users", self.users), ("items", self.items)) if table is not None}


def fit_linear(settings: LinearSettings, inputs: FitInputs) -> Model:
    """value = intercept + w . attributes of user and item; `regularization` |w|^2 joins the squared error.

    Features are centred over the observed interactions, so a user or item that the source does not know
    counts as the average one. The normal equations are sums over interactions of products of two features;
    they add up user by user, so Spark never holds an interactions x features matrix, and the driver features
    x features only. Raises TrainError on implicit feedback.
    """
    dataset, observed = inputs.dataset, inputs.observed
    if not dataset.explicit:
        raise TrainError(
            "linear: every interaction of an implicit dataset has the value 1, so there is nothing to "
            "explain. Prepare with feedback.kind explicit, or take model.kind popularity."
        )
    users = _side(dataset.users, "user", settings.users, observed)
    items = _side(dataset.items, "item", settings.items, observed)
    cross = _cross(observed, users, items)
    gram = np.block([[users.gram, cross], [cross.T, items.gram]])
    weights = _solve(gram, np.concatenate([users.target, items.target]), settings.regularization)
    mean = float(observed.agg(F.avg("value")).collect()[0][0])
    by_user = _parts(users, weights[: users.size])
    by_item = _parts(items, weights[users.size :])
    facts = {"user_features": users.size, "item_features": items.size}
    return sum_of_parts(dataset, mean, by_user, by_item, facts)


@dataclass(frozen=True)
class _Side:
    """Users or items: features, and their own part of the normal equations, of `size` centred features."""

    key: str
    features: DataFrame
    """key, feature, x; feature 0 is 1 for all that have any."""
    numbers: NDArray[np.int32]
    """(1 + size,) the features, ascending."""
    centring: Matrix
    """(size, 1 + size): takes the mean of each feature off it, with the help of feature 0."""
    gram: Matrix
    target: Matrix

    @property
    def size(self) -> int:
        return len(self.centring)


def _side(ids: DataFrame, key: str, settings: AttributeSettings | None, observed: DataFrame) -> _Side:
    if settings is None:
        nobody = ids.sparkSession.createDataFrame([], f"{key} long, feature int, x double")
        return _Side(key, nobody, np.zeros(1, np.int32), np.zeros((0, 1)), np.zeros((0, 0)), np.zeros(0))
    encoded = encode(ids, key, settings)
    numbers, size = encoded.numbers, len(encoded.numbers) - 1
    totals = observed.groupBy(key).agg(F.count("*").alias("n"), F.sum("value").alias("total"))
    rows = kept(encoded.rows.join(totals, key))
    counted = rows.select(key, "feature", (F.col("x") * F.col("n")).alias("x"))
    gram = _products(counted, encoded.rows, key, numbers, numbers)
    sums = to_arrow(rows.groupBy("feature").agg(F.sum(F.col("x") * F.col("total")).alias("sum")))
    release(rows)
    target = np.zeros(1 + size)
    target[np.searchsorted(numbers, sums["feature"].to_numpy())] = sums["sum"].to_numpy()
    means = gram[0, 1:] / max(gram[0, 0], 1.0)
    centring = np.hstack([-means[:, None], np.eye(size)])
    return _Side(key, encoded.rows, numbers, centring, centring @ gram @ centring.T, centring @ target)


def _cross(observed: DataFrame, users: _Side, items: _Side) -> Matrix:
    """sum over interactions of centred user features times centred item features."""
    if not (users.size and items.size):
        return np.zeros((users.size, items.size))
    rated = observed.select("user", "item").join(items.features, "item")
    by_user = rated.groupBy("user", "feature").agg(F.sum("x").alias("x"))
    products = _products(users.features, by_user, "user", users.numbers, items.numbers)
    return users.centring @ products @ items.centring.T


def _products(
    left: DataFrame, right: DataFrame, key: str, rows: NDArray[np.int32], columns: NDArray[np.int32]
) -> Matrix:
    """(n, m): sum over `key` of x of a feature on the left times x of one on the right.

    rows, columns  (n,) and (m,) the features, ascending
    """
    other = right.select(key, F.col("feature").alias("other"), F.col("x").alias("y"))
    pairs = left.join(other, key).groupBy("feature", "other")
    sums = to_arrow(pairs.agg(F.sum(F.col("x") * F.col("y")).alias("sum")))
    products = np.zeros((len(rows), len(columns)))
    row, other = np.searchsorted(rows, sums["feature"].to_numpy()), np.searchsorted(columns, sums["other"].to_numpy())
    products[row, other] = sums["sum"].to_numpy()
    return products


def _solve(gram: Matrix, target: Matrix, regularization: float) -> Matrix:
    """(gram + regularization I)^-1 target: the shortest solution where there are many."""
    squares, axes = np.linalg.eigh(gram)
    penalised = squares.clip(0) + regularization
    free = penalised > 1e-12 * penalised.max(initial=0)
    return np.asarray(axes[:, free] @ ((axes.T @ target)[free] / penalised[free]))


def _parts(side: _Side, weights: Matrix) -> DataFrame:
    """What the attributes of a user or item add to the mean: (key, part) for those that have attributes."""
    weights = weights @ side.centring
    table = pa.table({"feature": side.numbers, "weight": weights})
    placed = side.features.join(F.broadcast(from_arrow(side.features.sparkSession, table)), "feature")
    return placed.groupBy(side.key).agg(F.sum(F.col("x") * F.col("weight")).alias("part"))


MODEL = Declaration(
    settings=LinearSettings, feedback=("explicit",), fit=fit_linear, ranks_strangers=True, likeness=None
)
