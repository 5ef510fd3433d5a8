"""What users have: whole rows, and all rows as a graph of users and items."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Rows(NamedTuple):
    """All items of some users, one user after the other."""

    items: Tensor
    """(e,) long."""
    values: Tensor
    """(e,) float, observed values: 1 of implicit feedback."""
    confidence: Tensor
    """(e,) float."""
    start: Tensor
    """(u + 1,) long, where the row of each user begins; a row may be empty."""

    @property
    def of(self) -> Tensor:
        """(e,) number of the row of each entry."""
        n = len(self.start) - 1
        return torch.repeat_interleave(torch.arange(n, device=self.start.device), self.start.diff())

    def slice(self, first: int, stop: int) -> Rows:
        """The rows from number `first` to before `stop`."""
        start = self.start[first : stop + 1]
        entries = slice(int(start[0]), int(start[-1]))
        return Rows(self.items[entries], self.values[entries], self.confidence[entries], start - start[0])


@dataclass(frozen=True)
class Graph:
    """Users and items as nodes, and an edge for each item in the row of a user. An edge lies on the process of its
    user; the nodes of the items are on all processes."""

    rows: Rows
    """Of this process's users, in the order of its table of users."""
    item_degrees: Tensor
    """(m,) float, edges of each item, on all processes together."""
    sum_over_processes: Callable[[Tensor], Tensor]
    """Sums of all processes, with gradients."""

    @property
    def user_degrees(self) -> Tensor:
        """(n,) float, edges of each user."""
        return self.rows.start.diff().to(self.item_degrees.dtype)

    def to_users(self, w: Tensor) -> Tensor:
        """(m, d) values of the items -> (n, d) of each user the sum over the items that the user has."""
        summed: Tensor = _Product.apply(self._items_of_users, self._users_of_items, w)
        return summed

    def to_items(self, x: Tensor) -> Tensor:
        """(n, d) values of this process's users -> (m, d) of each item the sum over those who have it, wherever they
        are."""
        summed: Tensor = _Product.apply(self._users_of_items, self._items_of_users, x)
        return self.sum_over_processes(summed)

    @cached_property
    def _items_of_users(self) -> Tensor:
        return _sparse(self.rows.start, self.rows.items, len(self.item_degrees))

    @cached_property
    def _users_of_items(self) -> Tensor:
        items, m = self.rows.items, len(self.item_degrees)
        order = items.argsort(stable=True)
        counts = items.bincount(minlength=m)
        return _sparse(torch.cat((counts.new_zeros(1), counts.cumsum(0))), self.rows.of[order], len(self.user_degrees))


class _Product(torch.autograd.Function):
    """A constant sparse matrix times a dense one. Both directions are products of rows; torch would transpose the
    matrix anew in each step."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transposed: Tensor, values: Tensor) -> Tensor:
        ctx.transposed = transposed
        return matrix @ values

    @staticmethod
    def backward(ctx: Any, gradients: Tensor) -> tuple[None, None, Tensor]:
        return None, None, ctx.transposed @ gradients


def _sparse(start: Tensor, columns: Tensor, n_columns: int) -> Tensor:
    """The (n, n_columns) matrix whose row r has ones in the columns `columns[start[r] : start[r + 1]]`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse", UserWarning)  # torch calls its sparse rows a beta
        return torch.sparse_csr_tensor(
            start,
            columns,
            torch.ones(len(columns), device=columns.device),
            size=(len(start) - 1, n_columns),
            check_invariants=False,
        )
