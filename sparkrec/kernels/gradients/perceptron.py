"""A perceptron of users and items together, forwards and backwards, a block of examples at a time.

    a_1 = relu(U x + V y + b_1),   a_l = relu(W_l a_(l-1) + b_l)

A user's U x is computed once for all its items. Blocks stay in the cache, where autograd would write every step of the
whole batch to memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from sparkrec.kernels.als.dense import REGROUPED
from sparkrec.kernels.arrays import F32, I64

BLOCK = 128
"""Examples at a time."""


class Room(NamedTuple):
    """What a block needs, used again by the next one."""

    active: F32
    """(L, n widest): a_l of each example."""
    by_active: F32
    """(2, n widest): the derivatives by those before relu, of a layer and of the one below."""
    of_users: F32
    """(2, m size of a_1)"""
    product: F32


@njit(cache=True, nogil=True)
def room(layers: I64, m: int, n: int, of_user: int, of_item: int) -> Room:
    """For blocks of m users and n examples at most.

    layers           sizes of a_1, ..., a_L
    of_user, of_item sizes of x and y
    """
    widest, first = (layers.max(), layers[0]) if len(layers) else (0, 0)
    return Room(
        np.empty((len(layers), n * widest), np.float32),
        np.empty((2, n * widest), np.float32),
        np.empty((2, m * first), np.float32),
        np.empty(widest * max(widest, of_user, of_item), np.float32),
    )


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def forward(layers: I64, weights: F32, x: F32, y: F32, room: Room) -> Any:
    """a_L of each example, (n, last).

    weights  U, V, b_1, W_2, b_2, ..., one after the other
    x        (m, ...) of users, n / m examples each
    y        (n, ...) of items
    """
    size, n = layers[0], len(y)
    k = n // len(x)
    at, stop = size * x.shape[1], size * (x.shape[1] + y.shape[1])
    mine = room.of_users[0][: len(x) * size].reshape(len(x), size)
    np.dot(x, weights[:at].reshape(size, x.shape[1]).T, mine)
    out = room.active[0][: n * size].reshape(n, size)
    np.dot(y, weights[at:stop].reshape(size, y.shape[1]).T, out)
    bias = weights[stop : stop + size]
    for row in range(n):
        for c in range(size):
            out[row, c] = max(out[row, c] + mine[row // k, c] + bias[c], np.float32(0.0))
    at = stop + size
    for layer in range(1, len(layers)):
        before, size, given = size, layers[layer], out
        out = room.active[layer][: n * size].reshape(n, size)
        np.dot(given, weights[at : at + size * before].reshape(size, before).T, out)
        at += size * before
        bias = weights[at : at + size]
        for row in range(n):
            for c in range(size):
                out[row, c] = max(out[row, c] + bias[c], np.float32(0.0))
        at += size
    return out


@njit(cache=True, nogil=True)
def score(top: F32, h: F32, scores: F32) -> None:
    """h . a_L is added to the scores (m, k)."""
    k = scores.shape[1]
    for row in range(len(top)):
        scores[row // k, row % k] += _inner(h, top[row])


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _inner(a: F32, b: F32) -> Any:
    total = np.float32(0.0)
    for at in range(len(a)):
        total += a[at] * b[at]
    return total


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def backward(
    layers: I64, weights: F32, h: F32, x: F32, y: F32, by_score: F32, room: Room, weight_sums: F32, by_h: F32
) -> None:
    """After `forward`: the derivatives by the weights and by h, where h . a_L is a part of the scores, are added to
    their sums; those by the rows take the place of x and y.

    by_score  (m, k) derivatives by the scores
    """
    n, k, last = len(y), by_score.shape[1], layers[-1]
    top = room.active[len(layers) - 1][: n * last].reshape(n, last)
    slope, free = room.by_active[0][: n * last].reshape(n, last), 1
    for row in range(n):
        g = by_score[row // k, row % k]
        for at in range(last):
            by_h[at] += g * top[row, at]
            slope[row, at] = g * h[at] if top[row, at] > 0 else np.float32(0.0)
    at = layers[0] * (x.shape[1] + y.shape[1] + 1)
    for layer in range(1, len(layers)):
        at += layers[layer] * (layers[layer - 1] + 1)
    for layer in range(len(layers) - 1, 0, -1):
        before, size = layers[layer - 1], layers[layer]
        at -= size * (before + 1)
        given = room.active[layer - 1][: n * before].reshape(n, before)
        _add_product(slope, given, room.product, weight_sums[at : at + size * before])
        _add_rows(slope, weight_sums[at + size * before : at + size * (before + 1)])
        below = room.by_active[free][: n * before].reshape(n, before)
        np.dot(slope, weights[at : at + size * before].reshape(size, before), below)
        for row in range(n):
            for c in range(before):
                if not given[row, c] > 0:
                    below[row, c] = 0.0
        slope, free = below, 1 - free
    size = layers[0]
    of_user = room.of_users[1][: len(x) * size].reshape(len(x), size)
    of_user[:] = 0.0
    for row in range(n):
        for c in range(size):
            of_user[row // k, c] += slope[row, c]
    at, stop = size * x.shape[1], size * (x.shape[1] + y.shape[1])
    _add_product(of_user, x, room.product, weight_sums[:at])
    _add_product(slope, y, room.product, weight_sums[at:stop])
    _add_rows(of_user, weight_sums[stop : stop + size])
    np.dot(of_user, weights[:at].reshape(size, x.shape[1]), x)
    np.dot(slope, weights[at:stop].reshape(size, y.shape[1]), y)


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _add_product(left: F32, right: F32, product: F32, sums: F32) -> None:
    """sums += left' right, row after row."""
    rows, columns = left.shape[1], right.shape[1]
    np.dot(left.T, right, product[: rows * columns].reshape(rows, columns))
    for at in range(rows * columns):
        sums[at] += product[at]


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _add_rows(rows: F32, sums: F32) -> None:
    for row in range(len(rows)):
        for c in range(len(sums)):
            sums[c] += rows[row, c]
