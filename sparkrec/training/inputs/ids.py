"""What a model that sees ids alone takes of a batch; what all readers of inputs have."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparkrec.fields import SparseFeatures
from sparkrec.kernels.arrays import I64
from sparkrec.models.base.recommender import Features, KernelBatch, Recommender
from sparkrec.shards import Shard, Shards
from sparkrec.training.batches.batch import Batch


class KernelRead(NamedTuple):
    """A batch as a kernel of gradients takes it."""

    batch: KernelBatch
    users: I64
    """Different rows of the table of users that it reads, ascending."""
    items: I64
    """The same of the table of items."""


class InputReader:
    """Reads what a model takes besides ids, for the users of this process."""

    def __init__(self, shards: Shards, users: I64, device: torch.device) -> None:
        self.shards, self.users, self.device = shards, users, device

    def features_of(self, batch: Batch, items: Tensor) -> Features | None:
        """Of the examples of a batch and their items, (b, k), or (1, k) where all share them."""
        return None

    def of_users(self, model: Recommender, held_out: Shards, shard: Shard, part: I64) -> Features | None:
        """Of users (positions in a shard of held-out examples), each at the earliest of these, and of all items."""
        return None

    def of_examples(self, shard: Shard, at: I64, items: I64) -> Features | None:
        """Of the examples `at` in a shard and their items (n, 1)."""
        return None

    def for_kernel(self, batch: Batch) -> KernelRead:
        """A batch that was made with its places for kernels."""
        if batch.contexts is not None:
            return KernelRead(batch.contexts, _NOBODY, batch.contexts.items)
        assert batch.pairs is not None
        return KernelRead(batch.pairs, batch.pairs.users, batch.pairs.items)

    def rows_of_positive(self, negatives: int) -> int:
        """Rows of the table of items that a positive and its negatives read, if a field has one entry."""
        return 1 + negatives

    def pair_size(self, model: Recommender) -> int:
        """Numbers in memory for each pair of a query and an item that is scored."""
        return 1

    def item_entries(self) -> SparseFeatures:
        """What is known of all items after the last example."""
        return SparseFeatures.none(self.shards.n_items)


_NOBODY = np.zeros(0, np.int64)
