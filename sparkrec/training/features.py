"""What is known of the queries and items of a batch, as a model takes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sparkrec.errors import TrainError
from sparkrec.fields import Entries, Layout
from sparkrec.kernels.arrays import I64
from sparkrec.kernels.csr import distinct
from sparkrec.kernels.gradients.field_pairs import FieldPairs, Vectors
from sparkrec.models.base.inputs import feature_batch
from sparkrec.models.base.recommender import FeatureBatch, Features
from sparkrec.shards import ItemFeatures, Shards
from sparkrec.training.batches.pairs import Batch


def field_pairs(reader: FeatureReader, batch: Batch, users: I64) -> tuple[FieldPairs, I64]:
    """A batch as `kernels.field_pairs` reads it, and the different rows of items and features in it.

    users  (b,) ids of its examples
    """
    layout, pairs, n_items = reader.layout, batch.pairs, len(reader.items.start) - 1
    assert pairs is not None
    k = batch.items.shape[1]
    query = Entries.none(len(users)) if batch.entries is None else batch.entries
    known = reader.entries_of(batch.items, batch.timestamps)
    ids = np.concatenate((batch.items.ravel(), query.row + np.int32(n_items), known.row + np.int32(n_items)))
    rows, place = distinct(ids, n_items + layout.n_rows)
    cuts = np.cumsum([batch.items.size, len(query.row)])

    def vectors(entries: Entries, at: slice) -> Vectors:
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


class FeatureReader:
    """Looks up what the examples of this process refer to."""

    def __init__(self, layout: Layout, items: ItemFeatures, until: int, device: torch.device) -> None:
        self.layout, self.items, self.until, self.device = layout, items, until, device
        self._changes = len(items.since) > len(items.start) - 1

    @classmethod
    def of(cls, shards: Shards, device: torch.device) -> FeatureReader:
        """Of the examples in a folder."""
        if shards.layout is None:
            return cls(Layout(), ItemFeatures.none(shards.n_items), 0, device)
        return cls(shards.layout, shards.item_features, shards.manifest["until"], device)

    def read(self, users: I64, entries: Entries | None, timestamps: I64 | None, items: I64) -> Features:
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

    def entries_of(self, items: NDArray[Any], timestamps: I64 | None) -> Entries:
        """(b k,) of items (b, k), as they are known at the time of each row."""
        flat, times = items.ravel().astype(np.int64), np.zeros(0, np.int64)
        if not self.layout.item:
            return Entries.none(len(flat))
        if self._changes:
            assert timestamps is not None
            times = np.repeat(timestamps, items.shape[1])
        return self.items.at(flat, times)

    def read_all(self, users: I64, entries: Entries | None) -> Features:
        """Of queries, and all items (1, n) as they were known when the last example of training took place."""
        every = np.arange(len(self.items.start) - 1)
        known = self.items.at(every, np.full(len(every), self.until)) if self.layout.item else Entries.none(len(every))
        return Features(self._query(users, entries), self._items(every, known))

    def _query(self, users: I64, entries: Entries | None) -> FeatureBatch:
        entries = Entries.none(len(users)) if entries is None else entries
        return feature_batch(self.layout, len(self.layout.query), users, entries, self.device)

    def _items(self, items: I64, entries: Entries) -> FeatureBatch:
        return feature_batch(self.layout, len(self.layout.item), items, entries, self.device)
