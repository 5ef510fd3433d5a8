"""What models take besides ids, made of arrays: what is known of queries and items, and histories."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparkrec.fields import FieldSchema, SparseFeatures
from sparkrec.kernels.arrays import I64
from sparkrec.kernels.ragged import spans
from sparkrec.models.base.recommender import FeatureBatch
from sparkrec.models.base.sequence_model import History, SequenceModel


def feature_batch(
    layout: FieldSchema, n_fields: int, ids: I64, entries: SparseFeatures, device: torch.device
) -> FeatureBatch:
    """Entries of one side, whose fields are the first `n_fields` of it."""
    n, row, weight = len(ids), entries.row, entries.weight
    field = layout.field_of[row]
    one_each = len(row) == n * n_fields and bool((field.reshape(n, n_fields) == np.arange(n_fields)).all())
    slot = None if one_each else np.repeat(np.arange(n) * n_fields, np.diff(entries.start)) + field

    def there(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values if values.flags.writeable else values.copy()).to(device)

    return FeatureBatch(
        ids=there(ids),
        row=there(row.astype(np.int64)),
        weight=None if (weight == 1.0).all() else there(weight),
        slot=None if slot is None else there(slot),
    )


class HistoryArrays(NamedTuple):
    """As `models.sequence_model.History`, in arrays."""

    items: I64
    start: I64
    at: I64

    def tensors(self, device: torch.device) -> History:
        return History(*(torch.from_numpy(each).to(device) for each in self))


def next_item_inputs(
    histories: tuple[I64, Any], model: type[SequenceModel], length: int, n_items: int
) -> HistoryArrays:
    """What comes next is asked after each of the histories (start, items), of which the last `length` events count."""
    start, items = histories
    masked = model.asks == "masked"
    lengths = np.minimum(np.diff(start), length - 1 if masked else length)
    own = lengths + 1 if masked else lengths
    begin, places = spans(start[1:] - lengths, own)
    shown = items[np.minimum(places, max(len(items) - 1, 0))].astype(np.int64)
    if masked:
        shown[begin[1:] - 1] = n_items  # a hidden event comes next
    return HistoryArrays(shown, begin, begin[1:] - 1)
