"""Models of features: one vector and one weight for each, whoever they belong to."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from sparkrec.models.base.published import FieldRows, Published
from sparkrec.models.base.recommender import FeatureBatch, Features, Recommender, Sees, Sizes, kinds_of
from sparkrec.models.base.settings import FieldNetworkSettings


class FieldModel(Recommender):
    """Scores of fields. Field f of a pair has a weight a_f and a vector v_f: the sums, over its entries (row, weight),
    of weight times row. Its fields are the user, those of the query, the item, and those of items.

    `users` has a row (a, v) of each user; `items` has those of all items, then of all features. x and w of
    `interaction` are the fields of a query, F_q (1 + d) numbers, and of an item, F_i (1 + d), with zeros behind them if
    one is to be as long as the other.
    """

    sees: ClassVar[Sees] = "fields"
    is_sum_over_fields: ClassVar[bool] = False
    """Whether a score is the constant, the weights of all fields and the inner products of all pairs of their vectors,
    and no more."""

    def __init__(self, settings: FieldNetworkSettings, sizes: Sizes, dim: int) -> None:
        super().__init__(sizes.users, 1 + dim, sizes.items + sizes.layout.n_rows, 1 + dim)
        self.n_items, self.layout, self.row = sizes.items, sizes.layout, 1 + dim
        self.frozen_tables = settings.frozen
        self.weight_l2 = float(settings.weight_l2)
        self.users.shrinks = self.items.shrinks = torch.tensor([settings.weight_l2] + [1.0] * dim)
        self.n_query, self.n_item = 1 + len(sizes.layout.query), 1 + len(sizes.layout.item)
        self.constant = nn.Parameter(torch.zeros(()), requires_grad=not settings.training.compares)

    def start_from(self, parents: Sequence[tuple[type[Recommender], Published]]) -> None:
        """Weights and vectors of a model of the same fields, or of users and items of one without: then features stay
        as they are."""
        if len(parents) != 1:
            raise ValueError(f"found {kinds_of(parents)}, expected one model")
        (module, published), kind = parents[0], parents[0][1].settings.kind
        rows = module.field_rows(published)
        if rows is None:
            raise ValueError(f"found {kind}, expected mf or a model of features, which have vectors to take")
        if rows.layout not in (None, self.layout):
            fields, own = rows.layout.names, self.layout.names
            raise ValueError(f"the {kind} knows the fields {fields}, expected {own}, of the same values")
        if (found := rows.users.shape[1]) != self.row:
            raise ValueError(f"found a {kind} of dim {found - 1}, expected {self.row - 1}: give both the same dim")
        self.users.weight.copy_(torch.tensor(rows.users))
        self.items.weight[: self.n_items] = torch.tensor(rows.items)
        if rows.features is not None:
            self.items.weight[self.n_items :] = torch.tensor(rows.features)

    @classmethod
    def field_rows(cls, published: Published) -> FieldRows:
        row = published.users.shape[1]
        return FieldRows(published.users, published.items[:, :row], published.weights["features"], published.layout)

    @property
    def n_fields(self) -> int:
        return self.n_query + self.n_item

    @abstractmethod
    def field_interaction(self, query: Tensor, item: Tensor) -> Tensor:
        """(..., F_q, 1 + d) and (..., F_i, 1 + d), broadcast against each other, -> (...) logits, without the constant.

        What depends on one side alone is computed once for all that the other is paired with.
        """

    def interaction(self, x: Tensor, w: Tensor) -> Tensor:
        logits: Tensor = self.field_interaction(self._of(x, self.n_query), self._of(w, self.n_item)) + self.constant
        return logits

    def factors(self, users: Tensor, items: Tensor, features: Features | None) -> None:
        """None: where many items are scored, it is by `interaction`, whether or not there are vectors."""
        return

    def fields(self, x: Tensor, w: Tensor) -> Tensor:
        """(..., F, 1 + d): all of a pair."""
        return joined(self._of(x, self.n_query), self._of(w, self.n_item))

    def _of(self, rows: Tensor, n_fields: int) -> Tensor:
        fields: Tensor = rows[..., : n_fields * self.row].unflatten(-1, (n_fields, self.row))
        return fields

    def columns(self, field: int) -> list[int]:
        """Where a field is: columns of x, or of w if it is one of an item."""
        place = field if field < self.n_query else field - self.n_query
        return list(range(place * self.row, (place + 1) * self.row))

    def query(self, users: Tensor, known: FeatureBatch | None) -> Tensor:
        rows: Tensor = self.users(users)
        return self.query_rows(rows, known)

    def query_rows(self, rows: Tensor, known: FeatureBatch | None) -> Tensor:
        """(b, 1 + d) rows of users -> (b, p)."""
        return torch.cat((rows, self.pooled(known, self.n_query - 1)), -1) if known else rows

    def item(self, items: Tensor, known: FeatureBatch | None) -> Tensor:
        if items.numel() and not 0 <= int(items.min()) <= int(items.max()) < self.n_items:
            raise IndexError(f"items: expected ids from 0 to {self.n_items - 1}")
        rows: Tensor = self.items(items)
        return self.item_rows(rows, known)

    def item_rows(self, rows: Tensor, known: FeatureBatch | None) -> Tensor:
        """(..., k, 1 + d) rows of items -> (..., k, q)."""
        return (
            torch.cat(
                (rows, self.pooled(known, self.n_item - 1).view(*rows.shape[:-1], (self.n_item - 1) * self.row)), -1
            )
            if known
            else rows
        )

    def pooled(self, known: FeatureBatch, n_fields: int) -> Tensor:
        """(n, n_fields (1 + d)): the fields of n queries or items, but for the one of the id."""
        n = len(known.ids)
        if not n_fields:
            return self.items.weight.new_zeros(n, 0)
        rows: Tensor = self.items(known.row + self.n_items)
        if known.weight is not None:
            rows = rows * known.weight[:, None]
        if known.slot is not None:
            rows = rows.new_zeros(n * n_fields, self.row).index_add(0, known.slot, rows)
        return rows.reshape(n, n_fields * self.row)


def joined(query: Tensor, item: Tensor) -> Tensor:
    """(..., F_q, n) and (..., F_i, n), broadcast, -> (..., F, n)."""
    shape = torch.broadcast_shapes(query.shape[:-2], item.shape[:-2])
    return torch.cat((query.expand(*shape, -1, -1), item.expand(*shape, -1, -1)), -2)


def weights_of(query: Tensor, item: Tensor) -> Tensor:
    """The sum of the weights of both sides."""
    return query[..., 0].sum(-1) + item[..., 0].sum(-1)
