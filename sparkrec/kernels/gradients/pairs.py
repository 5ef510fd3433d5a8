"""A batch as the kernels of gradients read it."""

from __future__ import annotations

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


class Steps(NamedTuple):
    """Pairs of consecutive steps, one after the other."""

    pairs: Pairs
    """Places count from the first different one of a step."""
    starts: I64
    """(s + 1,) where the examples of each step begin."""
    user_starts: I64
    """(s + 1,) where its different users begin."""
    item_starts: I64
    """(s + 1,) where its different items begin."""

    @classmethod
    def of(cls, user: I64, item: I32, values: F32, confidence: F32, starts: I64, n_users: int, n_items: int) -> Steps:
        """Of columns that are cut at `starts`. Raises ValueError for a row that is not there."""
        k = item.shape[1]
        users, user_starts, user_place = distinct_in_parts(user, starts, n_users, "users")
        items, item_starts, item_place = distinct_in_parts(item.ravel(), starts * k, n_items, "items")
        pairs = Pairs(
            frozen(user, np.int64, "user"),
            frozen(item, np.int32, "item", 2),
            frozen(values, np.float32, "values"),
            frozen(confidence, np.float32, "confidence"),
            user_place,
            item_place.reshape(item.shape),
            users,
            items,
        )
        return cls(pairs, starts, user_starts, item_starts)


def of_step(steps: Steps, at: int) -> Pairs:
    """Those of one step."""
    a, b = steps.starts[at], steps.starts[at + 1]
    users = steps.pairs.users[steps.user_starts[at] : steps.user_starts[at + 1]]
    items = steps.pairs.items[steps.item_starts[at] : steps.item_starts[at + 1]]
    user, item, values, confidence, user_place, item_place, _, _ = steps.pairs
    return Pairs(user[a:b], item[a:b], values[a:b], confidence[a:b], user_place[a:b], item_place[a:b], users, items)
