"""A fitted model is two matrices: score(u, i) = <x_u, w_i>, or a head's f(x_u, w_i).

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
    mlp, neumf  what the head takes of a user         what it takes of an item
    fm, ...     the user's weight and vector          the item's, and those of its fields
    sasrec, ... the vector of the user's history      the item's vector, once `serving.bind` has made them
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pyspark.sql import DataFrame, SparkSession

from sparkrec import storage
from sparkrec.config import ModelSettings, Serving, model_settings
from sparkrec.fields import Entries
from sparkrec.fields import Layout as FieldLayout
from sparkrec.kernels.arrays import F32, I64, Lists
from sparkrec.models.base.published import ENCODER_FILE, SCORER_FILE
from sparkrec.spark.platform.lake import Lake, Run

Layout = Literal["dense", "sparse"]


class Scorer(Protocol):
    """A trained model without its tables, where scores are not inner products of their rows. Pickled to where it
    works."""

    @property
    def sees(self) -> str:
        """What its model takes besides ids: fields, history; or ids alone."""

    def to_bytes(self) -> bytes:
        """As a file."""


class PairScorer(Scorer, Protocol):
    """One of pairs of dense rows."""

    def scores(self, users: F32, items: F32) -> F32:
        """(a, d) and (b, d) -> (a, b)."""

    def score_pairs(self, users: F32, items: F32, pairs: Lists) -> F32:
        """Row u of `users` with the rows of `items` in list u -> (nnz,)."""


class HistoryScorer(Scorer, Protocol):
    """One of a model of sequences, whose users' rows are not yet what they are scored by: see `histories.bind`."""

    @property
    def length(self) -> int:
        """Events of a history that it can see."""

    def states(self, users: F32, histories: Lists, items: F32) -> F32:
        """(n, d) rows of users and what they did, places in `items`, (m, q) rows of all items -> (n, p) vectors."""

    def output_embeddings(self, items: F32) -> F32:
        """(m, q) rows of items -> (m, p) vectors."""

    @property
    def state_size(self) -> int:
        """Numbers in such a vector."""


class RowEncoder(Protocol):
    """A trained model of whole rows, without its users. Pickled to where it works."""

    def to_bytes(self) -> bytes:
        """As a file."""

    def encode(self, start: I64, items: I64, values: F32, confidence: F32) -> F32:
        """(u, d) rows of users who have the items `start[r]` to `start[r + 1]`, places among those of the model."""


class FieldScorer(PairScorer, Protocol):
    """One of a model of features, whose users' rows are not yet queries: see `field_queries.bind`."""

    @property
    def layout(self) -> FieldLayout:
        """Its fields."""

    @property
    def codes(self) -> str:
        """Digest of the codes of its fields."""

    @property
    def row(self) -> int:
        """Numbers in the row of a user or item, before their features."""

    @property
    def is_factorized(self) -> bool:
        """Whether its scores are inner products of vectors that `fold_queries` and `fold_items` make."""

    def queries(self, ids: I64, users: F32, entries: Entries) -> F32:
        """Rows of (n,) queries as `scores` takes them, from (n, d) rows of their users and what is known of them."""

    def items(self, ids: I64, items: F32, entries: Entries) -> F32:
        """The same of items."""

    def fold_queries(self, rows: F32) -> F32:
        """(n, p) as `queries` makes them -> (n, d) vectors."""

    def fold_items(self, rows: F32) -> F32:
        """(n, q) as `items` makes them -> (n, d) vectors."""

    def contributions(self, queries: F32, items: F32) -> tuple[list[tuple[str, str | None]], F32]:
        """What the score of each row is the sum of, and which fields and pairs of fields these are."""

    def columns(self, field: str) -> tuple[str, list[int]]:
        """Where a field is: columns of `queries`, or of `items`."""

    def score_events(self, users: tuple[I64, F32, Entries], items: tuple[I64, F32, Entries]) -> F32:
        """(n,) of n queries, each of one item: their ids, rows and entries."""

    def score_rows(self, queries: F32, items: F32) -> F32:
        """(n, p) and (n, q) -> (n,)."""


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
    head: PairScorer | FieldScorer | HistoryScorer | None = None
    """None: the inner product."""
    encoder: RowEncoder | None = None
    """What makes the row of a user from all that the user has; None: nothing that was trained does."""
    folder: str | None = None
    """Where both tables are as Parquet files `users` and `items`, if they are."""
    files: dict[str, bytes] = field(default_factory=dict)
    """What else to keep beside it, by name: a log, a plot. For people; `load` does not read it."""

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
        """Write both tables and publish the run."""
        return run.publish(model=self.write(run.path), facts=self.facts)

    def write(self, folder: str) -> dict[str, Any]:
        """Write both tables and what goes with them. Returns what `read` needs besides the files."""
        self.users.write.mode("overwrite").parquet(f"{folder}/users")
        self.items.write.mode("overwrite").parquet(f"{folder}/items")
        if self.head is not None:
            storage.write(f"{folder}/{SCORER_FILE}", self.head.to_bytes())
        if self.encoder is not None:
            storage.write(f"{folder}/{ENCODER_FILE}", self.encoder.to_bytes())
        for name, data in self.files.items():
            storage.write(f"{folder}/{name}", data)
        shape = {name: getattr(self, name) for name in ("size", "user_layout", "item_layout")}
        return {**shape, "settings": self.settings and self.settings.model_dump(mode="json")}

    @classmethod
    def load(cls, lake: Lake, run: Run) -> Model:
        """The model of a finished run."""
        assert run.manifest is not None
        return cls.read(lake.spark, run.path, run.manifest["model"], run.manifest["facts"])

    @classmethod
    def read(cls, spark: SparkSession, folder: str, shape: dict[str, Any], facts: dict[str, Any]) -> Model:
        """The counterpart of `write`, which returned `shape`."""
        settings = shape.get("settings")
        shape = {name: shape[name] for name in ("size", "user_layout", "item_layout")}
        head = encoder = None
        if storage.exists(f"{folder}/{SCORER_FILE}"):
            from sparkrec.models.base.scorers import load_scorer  # with torch, which only such models need

            head = load_scorer(storage.read(f"{folder}/{SCORER_FILE}"))
        if storage.exists(f"{folder}/{ENCODER_FILE}"):
            from sparkrec.models.base.scorers.rows import RowEncoder as TrainedEncoder

            encoder = TrainedEncoder.from_bytes(storage.read(f"{folder}/{ENCODER_FILE}"))
        return cls(
            users=spark.read.parquet(f"{folder}/users"),
            items=spark.read.parquet(f"{folder}/items"),
            facts=facts,
            folder=folder,
            head=head,
            encoder=encoder,
            settings=settings and model_settings(settings),
            **shape,
        )
