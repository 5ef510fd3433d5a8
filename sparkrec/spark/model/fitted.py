"""A fitted model is two matrices: score(u, i) = <x_u, w_i>, or a scorer's f(x_u, w_i).

Every kind has this form, so that saving, retrieval and evaluation are written once:

    kind        x_u                                   w_i
    popularity  [1]                                   [count]
    bias        [1, b_u]                              [mean + b_i, 1]
    linear      [1, attributes of u . weights]        [attributes of i . weights + intercept, 1]
    als         factors (and biases)                  factors (and biases)
    itemknn     the user's history, sparse            similarities to its neighbours, sparse
    userknn     similarities to neighbours, sparse    the item's history, sparse
    ease        the user's history, sparse            a column of the weights, dense
    markov      the user's last event, sparse         shares of those it came after, sparse
    mf, gmf     factors (and biases)                  factors (and biases)
    lightgcn    factors averaged over the graph       factors averaged over the graph
    linear_autoencoder  the row's items, summed       what the item is as an answer, and its bias
    mlp, neumf  what the scorer takes of a user       what it takes of an item
    fm, ...     the user's weight and vector          the item's, and those of its fields
    sasrec, ... the vector of the user's history      the item's vector, once `serving.bind` has made them
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from sparkrec import storage
from sparkrec.config import ModelSettings, Serving, model_settings
from sparkrec.kernels.csr import Storage
from sparkrec.models.base.published import ENCODER_FILE, LEARNED, SCORER_FILE
from sparkrec.spark.in_place import write
from sparkrec.spark.model.scorers import AnyScorer, RowEncoder
from sparkrec.spark.platform.few import from_files
from sparkrec.spark.platform.lake import Lake, Run


@dataclass(frozen=True)
class Model:
    """Two tables of rows in a space of `size` dimensions; columns as `tables.MODEL_USERS` and `MODEL_ITEMS`."""

    users: DataFrame
    items: DataFrame
    size: int
    user_storage: Storage
    item_storage: Storage
    facts: dict[str, Any] = field(default_factory=dict)
    """What the fit wants to tell: losses, counts. Plain values, kept in the manifest."""
    scorer: AnyScorer | None = None
    """None: the inner product."""
    encoder: RowEncoder | None = None
    """What makes the row of a user from all that the user has; None: nothing that was trained does."""
    folder: str | None = None
    """Where both tables are as Parquet files `users` and `items`, if they are."""
    files: dict[str, Callable[[], bytes]] = field(default_factory=dict)
    """What else to keep beside it, by name: what makes a log, a plot. For people; `load` does not read it."""
    learned: dict[str, Callable[[], bytes]] = field(default_factory=dict)
    """What a later model of the lake can begin with, by the name of its file in `LEARNED`."""

    settings: ModelSettings | None = None
    """What it was fitted with; None: nobody knows, and it has no rows but its own."""
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Of this fit or reading. Workers keep rows by it, and not by the folder, where another model may come to lie."""

    @property
    def serving(self) -> Serving:
        """How it is asked."""
        return Serving() if self.settings is None else self.settings.declaration

    @property
    def sees_histories(self) -> bool:
        """Whether what a user did last decides: who asks such a model hands over histories."""
        return self.settings is not None and self.settings.sequence_needs is not None

    def save(self, run: Run) -> Run:
        """Write both tables and what a later model can begin with, and publish the run."""
        for name, make in self.learned.items():
            storage.write(f"{run.path}/{LEARNED}/{name}", make())
        return run.publish(model=self.write(run.path), facts=self.facts)

    def write(self, folder: str) -> dict[str, Any]:
        """Write both tables and what goes with them. Returns what `read` needs besides the files."""
        write(self.users, f"{folder}/users")
        write(self.items, f"{folder}/items")
        if self.scorer is not None:
            storage.write(f"{folder}/{SCORER_FILE}", self.scorer.to_bytes())
        if self.encoder is not None:
            storage.write(f"{folder}/{ENCODER_FILE}", self.encoder.to_bytes())
        for name, make in self.files.items():
            storage.write(f"{folder}/{name}", make())
        return {
            "size": self.size,
            "user_layout": self.user_storage,
            "item_layout": self.item_storage,
            "settings": self.settings and self.settings.model_dump(mode="json"),
        }

    @classmethod
    def load(cls, lake: Lake, run: Run) -> Model:
        """The model of a finished run."""
        assert run.manifest is not None
        return cls.read(lake.spark, run.path, run.manifest["model"], run.manifest["facts"])

    @classmethod
    def read(cls, spark: SparkSession, folder: str, shape: dict[str, Any], facts: dict[str, Any]) -> Model:
        """The counterpart of `write`, which returned `shape`."""
        settings = shape.get("settings")
        scorer = encoder = None
        if storage.exists(f"{folder}/{SCORER_FILE}"):
            from sparkrec.models.base.scorers import load_scorer  # with torch, which only such models need

            scorer = load_scorer(storage.read(f"{folder}/{SCORER_FILE}"))
        if storage.exists(f"{folder}/{ENCODER_FILE}"):
            from sparkrec.models.base.scorers.rows import RowEncoder as TrainedEncoder

            encoder = TrainedEncoder.from_bytes(storage.read(f"{folder}/{ENCODER_FILE}"))
        return cls(
            users=from_files(spark, f"{folder}/users"),
            items=from_files(spark, f"{folder}/items"),
            facts=facts,
            folder=folder,
            scorer=scorer,
            encoder=encoder,
            settings=settings and model_settings(settings),
            size=shape["size"],
            user_storage=shape["user_layout"],
            item_storage=shape["item_layout"],
        )
