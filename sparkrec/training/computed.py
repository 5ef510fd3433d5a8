"""The rows that a model scores by, where it computes them from those that it learns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from sparkrec.kernels.ragged import joined_starts
from sparkrec.models.base.graph import Graph, Rows
from sparkrec.models.base.recommender import Recommender
from sparkrec.shards import Shards
from sparkrec.training.collective import Collective, summed_with_gradients


class ComputedTables:
    """A model and the graph that its `tables` are computed from, as far as it is this process's."""

    def __init__(self, model: Recommender, shards: Shards, mine: list[int], collective: Collective) -> None:
        """
        mine  numbers of the shards of this process, as its table of users has them
        """
        self.model = model
        self.graph: Graph | None = None
        if model.computes_tables != "never":
            self.graph = _graph_of(shards, mine, collective, model.items.weight.device)

    def compute(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """`model.tables` as the weights are now."""
        return self.model.tables(self.model.users.weight, self.model.items.weight, graph)

    @contextmanager
    def reading(self, x: Tensor, w: Tensor) -> Iterator[None]:
        """Within it the model reads these rows instead of those that it learns."""
        self.model.users.computed, self.model.items.computed = x, w
        try:
            yield
        finally:
            self.model.users.computed = self.model.items.computed = None

    def latest(self) -> tuple[Tensor, Tensor] | None:
        """The rows that the model scores by after all steps so far; None: those that it learns. Called by all
        processes. Leaves a model that computes them in evaluation mode."""
        if self.graph is None:
            return None
        self.model.eval()
        with torch.no_grad():
            return self.compute(self.graph)

    @contextmanager
    def reading_latest(self) -> Iterator[None]:
        """Within it the model reads the rows that it scores by; arguments and calls as of `latest`."""
        if (rows := self.latest()) is None:
            yield
            return
        with self.reading(*rows):
            yield


def _graph_of(shards: Shards, mine: list[int], collective: Collective, device: torch.device) -> Graph:
    read = [shards.read(number) for number in mine]
    start = joined_starts([shard.indptr for shard in read])
    columns = [
        np.concatenate([np.zeros(0, np.float32), *(getattr(shard, name) for shard in read)])
        for name in ("values", "confidence")
    ]
    items = np.concatenate([np.zeros(0, np.int64), *(shard.items for shard in read)])
    degrees = torch.from_numpy(np.bincount(items, minlength=shards.n_items).astype(np.float64))
    rows = Rows(*(torch.from_numpy(each).to(device) for each in (items, *columns, start)))
    return Graph(
        rows,
        collective.sum(degrees).float().to(device),
        lambda values: summed_with_gradients(values, collective),
    )
