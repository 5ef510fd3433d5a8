"""What all models are: a row for each user and item, and a function of a pair of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from torch import Generator, Tensor, nn

from sparkrec.fields import Layout
from sparkrec.models.base.tables import Rows


class Sizes(NamedTuple):
    """How large the tables of a model are."""

    users: int = 0
    items: int = 0
    layout: Layout = Layout()
    """Of the features, for models that have such."""
    length: int = 1
    """Events of a history, for models that see such."""


class Known(NamedTuple):
    """What is known of n queries or items: who they are, and entries of `sparkrec.fields`, e of them."""

    ids: Tensor
    """(n,) long."""
    row: Tensor
    """(e,) long, of features."""
    weight: Tensor | None
    """(e,) float; None: 1."""
    slot: Tensor | None
    """(e,) long: number of the query or item times fields of its side, plus the field; None: 0, 1, 2 ..."""


class Features(NamedTuple):
    """Of a batch: its (b,) queries, and its (b, k) or (1, k) items in a row, where more is known of them than who they
    are; of a query, for models of sequences, a `sequence_model.History`."""

    query: Any
    items: Known | None


class Recommender(nn.Module, ABC):
    """score(u, i) = combine(x_u, w_i), with rows x_u of `users` and w_i of `items`, and dense layers in `combine`."""

    def __init__(self, n_users: int, user_size: int, n_items: int, item_size: int) -> None:
        super().__init__()
        self.users, self.items = Rows(n_users, user_size), Rows(n_items, item_size)

    def initialize(self, generator: Generator) -> None:
        """Weights of linear layers uniform as Glorot and Bengio 2010, biases zero. Rows are not touched."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @abstractmethod
    def combine(self, x: Tensor, w: Tensor) -> Tensor:
        """(..., p) and (..., q), broadcast against each other, -> (...) logits."""

    def vectors(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor] | None:
        """Rows (n, d) and (m, d) with the same scores as their inner products, where a model has such."""
        return None

    def query(self, users: Tensor, known: Any) -> Tensor:
        """(b,) long -> (b, p): x of `combine`."""
        rows: Tensor = self.users(users)
        return rows

    def item(self, items: Tensor, known: Known | None) -> Tensor:
        """(..., k) long -> (..., k, q): w of `combine`."""
        rows: Tensor = self.items(items)
        return rows

    def score(self, users: Tensor, items: Tensor, features: Features | None = None) -> Tensor:
        """(B,) long and (B, k) or (1, k) long -> (B, k) logits."""
        of_query, of_items = features or (None, None)
        return self.combine(self.query(users, of_query)[:, None], self.item(items, of_items))

    def start_from(self, trained: dict[str, Recommender]) -> None:
        """Take over what trained models of other kinds know, as far as this one can."""
        raise ValueError(f"a {type(self).__name__.lower()} starts from no other model, found {sorted(trained)}")
