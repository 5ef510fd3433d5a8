"""Models of whole rows: a vector of all that a user has, and vectors of items."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from sparkrec.models.base.graph import Graph, Rows
from sparkrec.models.base.recommender import ComputesTables, Recommender, Sees, Unit

USERS = 1 << 10
"""Users whose states are computed at a time."""


class RowModel(Recommender):
    """score(u, i) = interaction(state of the row of u, w_i). `users` has what a model knows of a user beside the row;
    `items` has both what an item says in a row and what it is as an answer.

    A step reads the rows of its users; the states of all users are computed to be measured and published."""

    sees: ClassVar[Sees] = "rows"
    unit: ClassVar[Unit] = "users"
    computes_tables: ClassVar[ComputesTables] = "after steps"

    @abstractmethod
    def states(self, x: Tensor, rows: Rows) -> Tensor:
        """(u, d) rows of the table of users, and what these users have -> (u, p). While the model is trained it may
        leave out a part of what they have."""

    def query(self, users: Tensor, known: Rows | None) -> Tensor:
        """x of `interaction`: states of rows; without them those that `tables` has computed."""
        rows: Tensor = self.users(users)
        return rows if known is None else self.states(rows, known)

    def tables(self, x: Tensor, w: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
        n = len(x)
        spans = [(first, min(first + USERS, n)) for first in range(0, n, USERS)]
        states = [self.states(x[first:stop], graph.rows.slice(first, stop)) for first, stop in spans]
        return torch.cat(states or [self.stranger()[:0]]), w

    def stranger(self) -> Tensor:
        """The state of an empty row."""
        none = self.items.weight.new_zeros(0)
        start = torch.zeros(2, dtype=torch.long, device=none.device)
        return self.states(
            self.users.weight.new_zeros(1, self.users.weight.shape[1]), Rows(none.long(), none, none, start)
        )

    def pooled(self, rows: Rows, weights: Tensor) -> Tensor:
        """(e,) weights of the entries of rows -> (u, q) of each row the sum, over its entries, of weight times row of
        the item."""
        entries: Tensor = self.items(rows.items) * weights[:, None]
        return entries.new_zeros(len(rows.start) - 1, entries.shape[1]).index_add(0, rows.of, entries)
