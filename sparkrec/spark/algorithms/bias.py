"""Mean + user + item: the part of a rating that needs no taste to explain (Koren 2010, section 2.1)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field
from pyspark.sql import DataFrame

from sparkrec.config.model import Declaration, ModelSettings, UserRows
from sparkrec.errors import TrainError
from sparkrec.exported.histories import OwnBias
from sparkrec.spark.algorithms._biases import Biases, SolveUsers, blocks_of, solve, spread_of
from sparkrec.spark.data.fit_inputs import FitInputs
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import Constants
from sparkrec.spark.platform.few import narrowed
from sparkrec.spark.runner import Rows

_COLUMNS = ("user", "item", "value")


class BiasSettings(ModelSettings):
    """Mean + user + item, by ridge regression: the residual of a rating after it is what other models explain."""

    kind: Literal["bias"] = "bias"
    user_regularization: float = Field(5.0, ge=0)
    """Shrinks a user's bias as that many ratings at the mean would."""
    item_regularization: float = Field(5.0, ge=0)
    """Shrinks an item's bias as that many ratings at the mean would."""
    iterations: int = Field(10, ge=1)
    """Alternating sweeps over items and users."""


def fit_bias(settings: BiasSettings, inputs: FitInputs) -> Model:
    """mean + b_u + b_i; users and items without ratings have bias 0. TrainError on implicit feedback."""
    dataset = inputs.dataset

    def plan(observed: Rows, users: Rows, items: Rows) -> tuple[float, DataFrame, DataFrame]:
        mean, of_users, of_items = biases(observed, settings)
        rows = users.select("user").joined(of_users, "user", every=True).map_rows(Constants("user", (1.0, "bias")))
        level = items.of(Biases(of_items.ids, mean + of_items.bias).table("item"))
        of_all = items.select("item").joined(level, "item", every=True)
        return mean, rows.frame(), of_all.map_rows(Constants("item", ("bias", 1.0), missing=mean)).frame()

    ids = narrowed(dataset.users, "user"), narrowed(dataset.items, "item")
    mean, users, items = carry_out("bias", plan, narrowed(inputs.observed, *_COLUMNS), *ids)
    return Model(users=users, items=items, size=2, user_storage="dense", item_storage="dense", facts={"mean": mean})


def fold_users(model: Model, settings: BiasSettings, events: DataFrame, observed: DataFrame) -> DataFrame:
    """Rows of the users in `events` (user, item, value), the items as they are."""

    def plan(events: Rows, items: Rows) -> DataFrame:
        table = items.table().sort_by("item")
        level = np.array([value[0] for value in table["value"].to_pylist()])
        known = Biases(table["item"].to_numpy(), level)
        blocks = blocks_of(events.only(items, "item"))
        bias = blocks.map_rows(SolveUsers(0.0, known, settings.user_regularization))
        return bias.map_rows(Constants("user", (1.0, "bias"))).frame()

    return carry_out("bias", plan, narrowed(events, *_COLUMNS), narrowed(model.items, "item", "value"))


def exported(model: Model, settings: BiasSettings, observed: DataFrame) -> OwnBias:
    """As `fold_users`, without Spark."""
    return OwnBias(settings.user_regularization)


def biases(observed: Rows, settings: BiasSettings) -> tuple[float, Rows, Biases]:
    """Mean of `value`, and biases (user, bias) of the users and those of the items in `observed` (user, item, value),
    as of `_biases.solve`. Raises TrainError when there is no value, or but one."""
    blocks = blocks_of(observed).kept()
    try:
        mean, spread = spread_of(blocks)
        if mean is None or not spread:
            found = "there is no rating" if mean is None else f"all ratings are {mean:g}"
            raise TrainError(
                f"bias: {found}, so there is nothing to explain: it needs ratings that differ (prepare with "
                "feedback.kind explicit). For implicit feedback the baseline is model.kind popularity."
            )
        penalties = settings.user_regularization, settings.item_regularization
        users, items = solve(blocks, mean, spread, penalties, settings.iterations)
        users.count()  # before the blocks are let go of
    finally:
        blocks.release()
    return mean, users, items


MODEL = Declaration(
    settings=BiasSettings,
    feedback=("explicit",),
    fit=fit_bias,
    user_rows=UserRows(fold_users, "folded in"),
    exported=exported,
    likeness=None,
)
