"""A batch as the kernels of gradients read it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparkrec.kernels.arrays import F32, I32, I64, frozen
from sparkrec.kernels.csr import distinct


class Pairs(NamedTuple):
    """Positives, their negatives, and where the gradient of each row goes that they read."""

    user: I64
    """(b,) rows of the table of users."""
    item: I32
    """(b, 1 + n) rows of the table of items: of a positive, then of its negatives."""
    values: F32
    """(b,) observed of the positives."""
    confidence: F32
    """(b,) weights of the positives."""
    user_place: I32
    """(b,) which of the different users each is."""
    item_place: I32
    """(b, 1 + n) which of the different items each is."""
    users: I64
    """(u,) the different users, ascending."""
    items: I64
    """(v,) the different items."""

    @classmethod
    def of(cls, user: I64, item: I32, values: F32, confidence: F32, n_users: int, n_items: int) -> Pairs:
        """Raises ValueError for a row that is not there."""
        users, user_place = distinct(user, n_users, "users")
        items, item_place = distinct(item.ravel(), n_items, "items")
        return cls(
            frozen(user, np.int64, "user"),
            frozen(item, np.int32, "item", 2),
            frozen(values, np.float32, "values"),
            frozen(confidence, np.float32, "confidence"),
            user_place,
            item_place.reshape(item.shape),
            users,
            items,
        )
