"""A batch as the kernels of gradients read it."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from sparkrec.kernels.arrays import F32, I32, I64, frozen
from sparkrec.kernels.csr import distinct_in_parts


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
    def of_steps(
        cls, user: I64, item: I32, values: F32, confidence: F32, starts: I64, n_users: int, n_items: int
    ) -> list[Pairs]:
        """Those of each step: the columns are cut at `starts`. Raises ValueError for a row that is not there."""
        k = item.shape[1]
        users, user_bounds, user_place = distinct_in_parts(user, starts, n_users, "users")
        items, item_bounds, item_place = distinct_in_parts(item.ravel(), starts * k, n_items, "items")
        user, item = frozen(user, np.int64, "user"), frozen(item, np.int32, "item", 2)
        values, confidence = frozen(values, np.float32, "values"), frozen(confidence, np.float32, "confidence")
        item_place = item_place.reshape(item.shape)
        bounds = zip(*(pairwise(each.tolist()) for each in (starts, user_bounds, item_bounds)), strict=True)
        return [
            cls(
                *(user[a:b], item[a:b], values[a:b], confidence[a:b]),
                *(user_place[a:b], item_place[a:b], users[c:d], items[e:f]),
            )
            for (a, b), (c, d), (e, f) in bounds
        ]
