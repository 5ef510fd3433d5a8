"""What is known of the queries and items of a batch, as a model takes it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sparkrec.errors import TrainError
from sparkrec.fields import Entries, Layout
from sparkrec.kernels.arrays import I64
from sparkrec.models.recommender import Features, Known
from sparkrec.shards import ItemFeatures, Shards


def known(layout: Layout, n_fields: int, ids: I64, entries: Entries, device: torch.device) -> Known:
    """Entries of one side, whose fields are the first `n_fields` of it."""
    n, row, weight = len(ids), entries.row, entries.weight
    field = layout.field_of[row]
    one_each = len(row) == n * n_fields and bool((field.reshape(n, n_fields) == np.arange(n_fields)).all())
    slot = None if one_each else np.repeat(np.arange(n) * n_fields, np.diff(entries.start)) + field

    def there(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(device)

    return Known(
        ids=there(ids),
        row=there(row.astype(np.int64)),
        weight=None if (weight == 1.0).all() else there(weight),
        slot=None if slot is None else there(slot),
    )


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
        times = np.zeros(0, np.int64)
        if self._changes:
            assert timestamps is not None
            times = np.repeat(timestamps, items.shape[1])
        return Features(self._query(users, entries), self._items(items, times))

    def read_all(self, users: I64, entries: Entries | None) -> Features:
        """Of queries, and all items (1, n) as they were known when the last example of training took place."""
        every = np.arange(len(self.items.start) - 1)
        return Features(self._query(users, entries), self._items(every[None], np.full(len(every), self.until)))

    def _query(self, users: I64, entries: Entries | None) -> Known:
        entries = Entries.none(len(users)) if entries is None else entries
        return known(self.layout, len(self.layout.query), users, entries, self.device)

    def _items(self, items: I64, timestamps: I64) -> Known:
        flat = items.ravel().astype(np.int64)
        entries = self.items.at(flat, timestamps) if self.layout.item else Entries.none(len(flat))
        return known(self.layout, len(self.layout.item), flat, entries, self.device)
