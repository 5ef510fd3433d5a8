"""Embedding tables of which a batch touches a few rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EmbeddingTable(nn.Module):
    """(n, d) float32. What a batch reads are leaves of its graph, whose gradients `take` hands over, row by row.

    So the gradient of the table never exists: neither its zeros, nor a sparse tensor that would have to be sorted.
    """

    weight: Tensor
    shrinks: Tensor | None = None
    """(d,) how much each column counts in `squares`; None: 1."""
    computed: Tensor | None = None
    """(n, p) rows that were computed of `weight`, and are read instead of them; None: there are none."""

    def __init__(self, n: int, d: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(n, d))
        self._read: list[tuple[Tensor, Tensor]] = []
        self._squared = 0
        """How many of these `squares` has summed."""

    def forward(self, ids: Tensor) -> Tensor:
        """(...) long -> (..., d). Raises IndexError for ids out of range."""
        source = self._source
        rows = source.index_select(0, ids.reshape(-1))
        if torch.is_grad_enabled():
            rows.requires_grad_()
            self._read.append((ids.reshape(-1), rows))
        return rows.view(*ids.shape, source.shape[1])

    def squares(self) -> Tensor:
        """Sum of squares of what was read since the last time: of what is learned, where that is another thing."""
        read, self._squared = self._read[self._squared :], len(self._read)
        if self.computed is not None:
            read = [(ids, self.weight[ids]) for ids, _ in read]
        squares = torch.stack([rows.square().sum(0) for _, rows in read]).sum(0)
        return (squares if self.shrinks is None else squares * self.shrinks.to(squares.device)).sum()

    def take(self) -> tuple[Tensor, Tensor]:
        """(b,) ids that were read since the last time and (b, d) gradients; an id may come more than once."""
        read, self._read = [(ids, rows.grad) for ids, rows in self._read if rows.grad is not None], []
        self._squared = 0
        if not read:
            return torch.zeros(0, dtype=torch.long), self._source.new_zeros(0, self._source.shape[1])
        return torch.cat([ids for ids, _ in read]), torch.cat([grad for _, grad in read if grad is not None])

    @property
    def _source(self) -> Tensor:
        return self.weight if self.computed is None else self.computed
