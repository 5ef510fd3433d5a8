"""A fitted model is two matrices: score(u, i) = <x_u, w_i>.

Every kind that Spark fits has this form, so that saving, retrieval and evaluation are written once:

    kind        x_u                                   w_i
    popularity  [1]                                   [count]
    bias        [1, b_u]                              [mean + b_i, 1]
    linear      [1, attributes of u . weights]        [attributes of i . weights + intercept, 1]
    als         factors (and biases)                  factors (and biases)
    itemknn     the user's history, sparse            similarities to its neighbours, sparse
    userknn     similarities to neighbours, sparse    the item's history, sparse
    ease        the user's history, sparse            a column of the weights, dense
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pyspark.sql import DataFrame

from sparkrec.spark.lake import Lake, Run

Layout = Literal["dense", "sparse"]


@dataclass(frozen=True)
class Model:
    """Two tables of rows in a space of `size` dimensions; columns as `tables.MODEL_USERS` and `MODEL_ITEMS`."""

    users: DataFrame
    items: DataFrame
    size: int
    user_layout: Layout
    item_layout: Layout
    facts: dict[str, Any] = field(default_factory=dict)
    """What the fit wants to tell: losses, counts. Plain values, kept in the manifest."""

    def save(self, run: Run) -> Run:
        """Write both tables and publish the run."""
        self.users.write.mode("overwrite").parquet(f"{run.path}/users")
        self.items.write.mode("overwrite").parquet(f"{run.path}/items")
        shape = {"size": self.size, "user_layout": self.user_layout, "item_layout": self.item_layout}
        return run.publish(model=shape, facts=self.facts)

    @classmethod
    def load(cls, lake: Lake, run: Run) -> Model:
        assert run.manifest is not None
        return cls(
            users=lake.spark.read.parquet(f"{run.path}/users"),
            items=lake.spark.read.parquet(f"{run.path}/items"),
            facts=run.manifest["facts"],
            **run.manifest["model"],
        )
