"""What all models are: a row for each user and item, and a function of a pair of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import torch
from torch import Generator, Tensor, nn
from typing_extensions import Self

from sparkrec.fields import FieldSchema
from sparkrec.kernels.arrays import F32
from sparkrec.kernels.gradients.contexts import Contexts
from sparkrec.kernels.gradients.field_pairs import FieldPairs
from sparkrec.kernels.gradients.losses import Goal
from sparkrec.kernels.gradients.pairs import Pairs
from sparkrec.models.base.graph import Graph
from sparkrec.models.base.published import FieldRows, Published
from sparkrec.models.base.tables import EmbeddingTable

Sees: TypeAlias = Literal["ids", "fields", "history", "rows"]
"""What a model takes to score a query and items: who they are; the entries of their fields; what the user did, in
order; all that the user has."""


Unit: TypeAlias = Literal["pairs", "sequences", "contexts", "users"]
"""What a batch is made of: positives with their negatives; sequences, with what is asked of them; events of sequences,
with those around them; users, with their whole rows."""
ComputesTables: TypeAlias = Literal["never", "in steps", "after steps"]
"""When a model computes the rows by which it scores from those that it learns: never, they are the same; in each step,
whose batch reads them; or after steps alone, to be measured and published."""
KernelBatch: TypeAlias = Pairs | FieldPairs | Contexts


class KernelStep(NamedTuple):
    """What a kernel of gradients reads, and what it adds the gradients to."""

    batch: Any
    """A KernelBatch: that of what the model sees and of its unit."""
    goal: Goal
    scale: float
    """The loss is multiplied by it."""
    weights: F32
    """(n,) the dense parameters that are learned, one after the other."""
    user_sums: F32
    """A row for each different user of the batch."""
    item_sums: F32
    """A row for each different row of the table of items that the batch reads."""
    weight_sums: F32
    """(n,) as `weights`."""


class Sizes(NamedTuple):
    """How large the tables of a model are."""

    users: int = 0
    items: int = 0
    layout: FieldSchema = FieldSchema()
    """Of the features, for models that have such."""
    length: int = 1
    """Events of a history, for models that see such."""


class FeatureBatch(NamedTuple):
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
    are; of queries, for models of sequences, a `sequence_model.History`; for models of whole rows, `graph.Rows`."""

    query: Any
    items: FeatureBatch | None


class Recommender(nn.Module, ABC):
    """score(u, i) = interaction(x_u, w_i), with rows x_u of `users` and w_i of `items`; dense layers are in
    `interaction`."""

    sees: ClassVar[Sees] = "ids"
    """What else it takes to score."""
    unit: ClassVar[Unit] = "pairs"
    computes_tables: ClassVar[ComputesTables] = "never"
    """When `tables` is called."""
    gradient_kernel: ClassVar[Callable[[Any, KernelStep], float] | None] = None
    """The gradients of a batch without torch: of the model and a step, it adds them up and returns the loss. None:
    autograd."""
    group_kernel: ClassVar[Callable[..., Any] | None] = None
    """Several steps in one call, for one process: as `kernels.gradients.factors.train`."""
    frozen_tables: bool = False
    """Whether the rows of users and items stay as they are."""

    def __init__(self, n_users: int, user_size: int, n_items: int, item_size: int) -> None:
        super().__init__()
        self.users, self.items = EmbeddingTable(n_users, user_size), EmbeddingTable(n_items, item_size)

    def initialize(self, generator: Generator) -> None:
        """Weights of linear layers uniform as Glorot and Bengio 2010, biases zero. Rows are not touched."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def tables(self, x: Tensor, w: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
        """The rows of all users (of this process) and items by which the model scores, from those that it learns.

        x, w  (n, p) and (m, q): all of `users` and `items`
        """
        return x, w

    def stranger(self) -> Tensor:
        """(1, p) row by which a user without examples is scored: nothing is known."""
        return self.users.weight.new_zeros(1, self.users.weight.shape[1])

    @abstractmethod
    def interaction(self, x: Tensor, w: Tensor) -> Tensor:
        """(..., p) and (..., q), broadcast against each other, -> (...) logits."""

    def vectors(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor] | None:
        """Rows (n, d) and (m, d) with the same scores as their inner products, where a model has such."""
        return None

    @property
    def is_factorized(self) -> bool:
        """Whether its scores are inner products of `vectors`."""
        return type(self).vectors is not Recommender.vectors

    @property
    def publishes_vectors(self) -> bool:
        """Whether its rows are published as vectors, whose inner products are the scores: not where a query is more
        than its user."""
        return self.sees in ("ids", "rows") and self.is_factorized

    def query(self, users: Tensor, known: Any) -> Tensor:
        """(b,) long -> (b, p): x of `interaction`."""
        rows: Tensor = self.users(users)
        return rows

    def item(self, items: Tensor, known: FeatureBatch | None) -> Tensor:
        """(..., k) long -> (..., k, q): w of `interaction`."""
        rows: Tensor = self.items(items)
        return rows

    def factors(self, users: Tensor, items: Tensor, features: Features | None) -> tuple[Tensor, Tensor] | None:
        """Vectors (b, d) of queries and (m, d) of items (m,), whose inner products are the scores; None where there are
        none."""
        if not self.is_factorized:
            return None
        of_query, of_items = features or (None, None)
        return self.vectors(self.query(users, of_query), self.item(items, of_items))

    def score(self, users: Tensor, items: Tensor, features: Features | None = None, of: Tensor | None = None) -> Tensor:
        """(b,) long and (B, k) or (1, k) long -> (B, k) logits.

        of  (B,) which of the users each row of items is for; None: one each
        """
        of_query, of_items = features or (None, None)
        x = self.query(users, of_query)
        return self.interaction((x if of is None else x[of])[:, None], self.item(items, of_items))

    def start_from(self, parents: Sequence[tuple[type[Recommender], Published]]) -> None:
        """Take over what published models know, as far as this one can. Raises ValueError for models that it cannot
        start from.

        parents  the class of each, and what was published of it
        """
        raise ValueError(f"a {type(self).__name__.lower()} starts from no other model, found {kinds_of(parents)}")

    @classmethod
    def restored(cls, published: Published) -> Self:
        """The model that was published, with the rows of the users in `published` and of all items."""
        model = cls(published.settings, Sizes(len(published.users), len(published.items)))  # type: ignore[call-arg, arg-type]
        model.load_state_dict({name: torch.tensor(each) for name, each in published.weights.items()}, strict=False)
        model.users.weight.copy_(torch.tensor(published.users))
        model.items.weight.copy_(torch.tensor(published.items))
        return model

    @classmethod
    def field_rows(cls, published: Published) -> FieldRows | None:
        """Of a published model, what one of fields can start from; None where it has no such rows."""
        return None


def kinds_of(parents: Sequence[tuple[type[Recommender], Published]]) -> list[str]:
    """For messages."""
    return sorted(published.settings.kind for _, published in parents)
