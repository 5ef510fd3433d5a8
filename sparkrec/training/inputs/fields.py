"""What is known of the queries and items of a batch, as a model takes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparkrec.errors import TrainError
from sparkrec.fields import FieldSchema, SparseFeatures
from sparkrec.kernels.arrays import I64
from sparkrec.kernels.csr import distinct
from sparkrec.kernels.gradients.field_pairs import FieldPairs, Vectors
from sparkrec.models.base.inputs import feature_batch
from sparkrec.models.base.recommender import FeatureBatch, Features, Recommender
from sparkrec.shards import ItemFeatures, Shard, Shards
from sparkrec.training.batches.batch import Batch
from sparkrec.training.inputs.ids import InputReader, KernelRead


def field_pairs(reader: FieldReader, batch: Batch, users: I64) -> tuple[FieldPairs, I64]:
    """A batch as `kernels.field_pairs` reads it, and the different rows of items and features in it.

    users  (b,) ids of its examples
    """
    layout, pairs, n_items = reader.layout, batch.pairs, len(reader.items.start) - 1
    assert pairs is not None
    k = batch.items.shape[1]
    query = SparseFeatures.none(len(users)) if batch.entries is None else batch.entries
    known = reader.entries_of(batch.items, batch.timestamps)
    ids = np.concatenate((batch.items.ravel(), query.row + np.int32(n_items), known.row + np.int32(n_items)))
    rows, place = distinct(ids, n_items + layout.n_rows)
    cuts = np.cumsum([batch.items.size, len(query.row)])

    def vectors(entries: SparseFeatures, at: slice) -> Vectors:
        return Vectors(
            entries.start, entries.row + np.int64(n_items), entries.weight, layout.field_of[entries.row], place[at]
        )

    made = FieldPairs(
        user=pairs.user,
        user_place=pairs.user_place,
        item=pairs.item,
        item_place=place[: cuts[0]].reshape(-1, k),
        values=pairs.values,
        confidence=pairs.confidence,
        query=vectors(query, slice(cuts[0], cuts[1])),
        known=vectors(known, slice(cuts[1], None)),
    )
    return made, rows


class FieldReader(InputReader):
    """Looks up the features of queries and items."""

    def __init__(self, shards: Shards, users: I64, device: torch.device) -> None:
        super().__init__(shards, users, device)
        self.layout = shards.layout or FieldSchema()
        self.items = ItemFeatures.none(shards.n_items) if shards.layout is None else shards.item_features
        self.until = 0 if shards.layout is None else int(shards.manifest["until"])
        self._changes = len(self.items.since) > len(self.items.start) - 1

    def features_of(self, batch: Batch, items: Tensor) -> Features:
        """Raises TrainError for items (1, k) that all examples share, if what is known of items changes in time."""
        return self.read(self.users[batch.users], batch.entries, batch.timestamps, items.numpy())

    def of_users(self, model: Recommender, held_out: Shards, shard: Shard, part: I64) -> Features:
        entries = shard.entries and shard.entries.take(_earliest(shard, part))
        every = np.arange(self.shards.n_items)
        return Features(self._query(shard.users[part], entries), self._items(every, self.item_entries()))

    def of_examples(self, shard: Shard, at: I64, items: I64) -> Features:
        entries = shard.entries and shard.entries.take(at)
        timestamps = None if shard.timestamps is None else shard.timestamps[at]
        return self.read(shard.users[shard.rows[at]], entries, timestamps, items)

    def for_kernel(self, batch: Batch) -> KernelRead:
        assert batch.pairs is not None
        pairs, rows = field_pairs(self, batch, self.users[batch.users])
        return KernelRead(pairs, batch.pairs.users, rows)

    def rows_of_positive(self, negatives: int) -> int:
        items = 1 + negatives
        return items + len(self.layout.query) + items * len(self.layout.item)

    def pair_size(self, model: Recommender) -> int:
        return int(model.items.weight.shape[1])

    def item_entries(self) -> SparseFeatures:
        n = self.shards.n_items
        return self.items.at(np.arange(n), np.full(n, self.until)) if self.layout.item else SparseFeatures.none(n)

    def read(self, users: I64, entries: SparseFeatures | None, timestamps: I64 | None, items: I64) -> Features:
        """Of (b,) examples and their items, (b, k); those of a row see what is known at the time of its example.

        users  (b,) ids of them
        entries, timestamps  of them; None: there are no features but the ids

        Raises TrainError for items (1, k) that all examples share, if what is known of items changes in time.
        """
        if len(items) != len(users) and self._changes:
            raise TrainError(
                "a loss over all items, or the items of a batch, does not fit item features with a timestamp: each "
                "example sees other values. Choose a loss with drawn negatives."
            )
        flat = items.ravel().astype(np.int64)
        return Features(self._query(users, entries), self._items(flat, self.entries_of(items, timestamps)))

    def entries_of(self, items: NDArray[Any], timestamps: I64 | None) -> SparseFeatures:
        """(b k,) of items (b, k), as they are known at the time of each row."""
        flat, times = items.ravel().astype(np.int64), np.zeros(0, np.int64)
        if not self.layout.item:
            return SparseFeatures.none(len(flat))
        if self._changes:
            assert timestamps is not None
            times = np.repeat(timestamps, items.shape[1])
        return self.items.at(flat, times)

    def _query(self, users: I64, entries: SparseFeatures | None) -> FeatureBatch:
        entries = SparseFeatures.none(len(users)) if entries is None else entries
        return feature_batch(self.layout, len(self.layout.query), users, entries, self.device)

    def _items(self, items: I64, entries: SparseFeatures) -> FeatureBatch:
        return feature_batch(self.layout, len(self.layout.item), items, entries, self.device)


def _earliest(shard: Shard, part: I64) -> I64:
    """The first in time of the examples of each of some users."""
    assert shard.timestamps is not None
    in_time = np.lexsort((shard.timestamps, shard.rows))
    return in_time[shard.indptr[part]]
