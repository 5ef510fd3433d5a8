"""What scores the rows of a model, where scores are not their inner products.

Scorers are trained models without their tables; `sparkrec.models` makes them, and here is what is asked of them.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

from sparkrec.fields import FieldSchema, SparseFeatures
from sparkrec.kernels.arrays import F32, I64, Lists


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


class FieldScorer(PairScorer, Protocol):
    """One of a model of features, whose users' rows are not yet queries: see `field_queries.bind`."""

    @property
    def layout(self) -> FieldSchema:
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

    def queries(self, ids: I64, users: F32, entries: SparseFeatures) -> F32:
        """Rows of (n,) queries as `scores` takes them, from (n, d) rows of their users and what is known of them."""

    def items(self, ids: I64, items: F32, entries: SparseFeatures) -> F32:
        """The same of items."""

    def fold_queries(self, rows: F32) -> F32:
        """(n, p) as `queries` makes them -> (n, d) vectors."""

    def fold_items(self, rows: F32) -> F32:
        """(n, q) as `items` makes them -> (n, d) vectors."""

    def contributions(self, queries: F32, items: F32) -> tuple[list[tuple[str, str | None]], F32]:
        """What the score of each row is the sum of, and which fields and pairs of fields these are."""

    def columns(self, field: str) -> tuple[str, list[int]]:
        """Where a field is: columns of `queries`, or of `items`."""

    def score_events(self, users: tuple[I64, F32, SparseFeatures], items: tuple[I64, F32, SparseFeatures]) -> F32:
        """(n,) of n queries, each of one item: their ids, rows and entries."""

    def score_rows(self, queries: F32, items: F32) -> F32:
        """(n, p) and (n, q) -> (n,)."""


class RowEncoder(Protocol):
    """A trained model of whole rows, without its users. Pickled to where it works."""

    def to_bytes(self) -> bytes:
        """As a file."""

    def encode(self, start: I64, items: I64, values: F32, confidence: F32) -> F32:
        """(u, d) rows of users who have the items `start[r]` to `start[r + 1]`, places among those of the model."""


AnyScorer: TypeAlias = PairScorer | FieldScorer | HistoryScorer
