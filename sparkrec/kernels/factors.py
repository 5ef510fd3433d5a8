"""Gradients of inner products, for models whose score is <p_u, q_i> + b_u + b_i + c: what a batch says of each row.

    x_u = (p_u, b_u), w_i = (q_i, b_i) of d + 1 numbers;   g_ej = d loss / d score(u_e, i_ej)
    d loss / d x_u = sum_{e of u} sum_j g_ej (q_ij, 1)      d loss / d w_i = sum_{e, j of i} g_ej (p_ue, 1)

No gradient of a single example is ever written down: each row's is summed in registers, from the rows that it needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from sparkrec.kernels.arrays import F32, I32, I64, frozen
from sparkrec.kernels.csr import runs


def inner_products(users: F32, items: F32, user: I64, item: I32, constant: float = 0.0) -> F32:
    """(b, k) scores of user row `user[e]` with item rows `item[e]`, and a constant.

    users, items  (n, d + 1) and (m, d + 1) float32, the last column a bias
    user, item    (b,) int64 and (b, k) int32, rows of them
    Raises ValueError for a row that is not there.
    """
    scores = np.empty(item.shape, np.float32)
    given = frozen(user, np.int64, "user"), frozen(item, np.int32, "item", 2), np.float32(constant)
    if not _inner_products(users, items, *given, scores):
        _check(user, len(users), "users")
        _check(item, len(items), "items")
    return scores


def user_gradients(items: F32, user: I64, item: I32, by_score: F32, n_users: int) -> tuple[I64, F32]:
    """Rows of users in a batch, ascending, and their gradients (u, d + 1); `by_score` (b, k) is that by each score."""
    keys, start, order = runs(user, n_users)
    gradients = np.empty((len(keys), items.shape[1]), np.float32)
    _user_gradients(items, item, by_score, start, order, gradients)
    return keys, gradients


def item_gradients(users: F32, user: I64, item: I32, by_score: F32, n_items: int) -> tuple[I64, F32]:
    """The same of items."""
    keys, start, order = runs(item.ravel(), n_items)
    gradients = np.empty((len(keys), users.shape[1]), np.float32)
    _item_gradients(users, user, by_score.ravel(), item.shape[1], start, order, gradients)
    return keys, gradients


def _check(rows: I64 | I32, n: int, name: str) -> None:
    if rows.size and (rows.min() < 0 or rows.max() >= n):
        raise ValueError(f"{name}: found rows {rows.min()} to {rows.max()}, expected them in [0, {n})")


_FAST = {"reassoc", "contract", "nsz"}


@njit(cache=True, nogil=True, fastmath=_FAST)
def _inner_products(users: F32, items: F32, user: I64, item: I32, constant: Any, scores: F32) -> bool:
    """Whether all rows are there."""
    d = users.shape[1] - 1
    for e in range(len(user)):
        if not 0 <= user[e] < len(users):
            return False
        x = users[user[e]]
        for j in range(item.shape[1]):
            if not 0 <= item[e, j] < len(items):
                return False
            w = items[item[e, j]]
            total = np.float32(0.0)
            for k in range(d):
                total += x[k] * w[k]
            scores[e, j] = total + x[d] + w[d] + constant
    return True


@njit(cache=True, nogil=True, fastmath=_FAST)
def _user_gradients(items: F32, item: I32, by_score: F32, start: I64, order: I64, gradients: F32) -> None:
    d = items.shape[1] - 1
    for row in range(len(gradients)):
        total = gradients[row]
        total[:] = 0.0
        for at in range(start[row], start[row + 1]):
            e = order[at]
            for j in range(item.shape[1]):
                w, g = items[item[e, j]], by_score[e, j]
                for k in range(d):
                    total[k] += g * w[k]
                total[d] += g


@njit(cache=True, nogil=True, fastmath=_FAST)
def _item_gradients(users: F32, user: I64, by_score: F32, n: int, start: I64, order: I64, gradients: F32) -> None:
    d = users.shape[1] - 1
    for row in range(len(gradients)):
        total = gradients[row]
        total[:] = 0.0
        for at in range(start[row], start[row + 1]):
            x, g = users[user[order[at] // n]], by_score[order[at]]
            for k in range(d):
                total[k] += g * x[k]
            total[d] += g
