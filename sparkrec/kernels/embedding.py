"""Updating the rows of a table that a batch has touched, and no others.

The gradient of a table of embeddings is zero but in the rows of a batch. Optimisers that keep a state for each row are
lazy: a row's state and weight decay move when the row does (as SparseAdam of torch, and LazyAdam of TensorFlow).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from sparkrec.kernels.arrays import F32, I32, I64, frozen
from sparkrec.kernels.csr import distinct
from sparkrec.kernels.dense import prefetch

AHEAD = 4
"""Rows that are asked for before they are needed: they are far apart, and no processor guesses which is next."""


def summed(ids: I64, gradients: F32, n_rows: int) -> tuple[I64, F32]:
    """The different ids, ascending, and the sum of the gradients of each.

    ids        (b,) int64 in [0, n_rows)
    gradients  (b, d) float32
    Raises ValueError for an id out of range.
    """
    ids = frozen(ids, np.int64, "ids")
    gradients = frozen(gradients, np.float32, "gradients", 2)
    if len(ids) != len(gradients):
        raise ValueError(f"gradients: found {len(gradients)} rows, expected one for each of {len(ids)} ids")
    keys, place = distinct(ids, n_rows)
    sums = np.zeros((len(keys), gradients.shape[1]), np.float32)
    _add(gradients, place, sums)
    return keys, sums


@njit(cache=True, nogil=True)
def _add(gradients: F32, place: I32, sums: F32) -> None:
    for at in range(len(place)):
        total, source = sums[place[at]], gradients[at]
        for k in range(len(total)):
            total[k] += source[k]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"})
def sgd(table: F32, velocity: F32, ids: I64, gradients: F32, rate: float, momentum: float) -> None:
    """v = momentum v + g; w -= rate v, for the rows `ids` (different ones)."""
    rate_, momentum_ = np.float32(rate), np.float32(momentum)
    for at in range(len(ids)):
        if at + AHEAD < len(ids):
            prefetch(table, ids[at + AHEAD])
            prefetch(velocity, ids[at + AHEAD])
        w, v, g = table[ids[at]], velocity[ids[at]], gradients[at]
        for k in range(len(w)):
            v[k] = momentum_ * v[k] + g[k]
            w[k] -= rate_ * v[k]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"})
def adagrad(table: F32, total: F32, ids: I64, gradients: F32, rate: float, epsilon: float) -> None:
    """s += g^2; w -= rate g / (sqrt(s) + epsilon) (Duchi et al. 2011)."""
    rate_, epsilon_ = np.float32(rate), np.float32(epsilon)
    for at in range(len(ids)):
        if at + AHEAD < len(ids):
            prefetch(table, ids[at + AHEAD])
            prefetch(total, ids[at + AHEAD])
        w, s, g = table[ids[at]], total[ids[at]], gradients[at]
        for k in range(len(w)):
            s[k] += g[k] * g[k]
            w[k] -= rate_ * g[k] / (np.sqrt(s[k]) + epsilon_)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"})
def rmsprop(table: F32, square: F32, ids: I64, gradients: F32, rate: float, decay: float, epsilon: float) -> None:
    """s = decay s + (1 - decay) g^2; w -= rate g / (sqrt(s) + epsilon)."""
    rate_, decay_, epsilon_, rest = np.float32(rate), np.float32(decay), np.float32(epsilon), np.float32(1 - decay)
    for at in range(len(ids)):
        if at + AHEAD < len(ids):
            prefetch(table, ids[at + AHEAD])
            prefetch(square, ids[at + AHEAD])
        w, s, g = table[ids[at]], square[ids[at]], gradients[at]
        for k in range(len(w)):
            s[k] = decay_ * s[k] + rest * g[k] * g[k]
            w[k] -= rate_ * g[k] / (np.sqrt(s[k]) + epsilon_)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"})
def adam(
    table: F32,
    mean: F32,
    square: F32,
    ids: I64,
    gradients: F32,
    step: int,
    rate: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    decay: float,
) -> None:
    """Kingma and Ba 2015, algorithm 1, at `step` >= 1; `decay` is AdamW's (Loshchilov and Hutter 2019)."""
    correction = np.sqrt(1 - beta2**step)
    size = np.float32(rate * correction / (1 - beta1**step))
    floor = np.float32(epsilon * correction)
    first, second = np.float32(beta1), np.float32(beta2)
    rest1, rest2, kept = np.float32(1 - beta1), np.float32(1 - beta2), np.float32(1 - rate * decay)
    for at in range(len(ids)):
        if at + AHEAD < len(ids):
            prefetch(table, ids[at + AHEAD])
            prefetch(mean, ids[at + AHEAD])
            prefetch(square, ids[at + AHEAD])
        w, m, s, g = table[ids[at]], mean[ids[at]], square[ids[at]], gradients[at]
        for k in range(len(w)):
            m[k] = first * m[k] + rest1 * g[k]
            s[k] = second * s[k] + rest2 * g[k] * g[k]
            w[k] = kept * w[k] - size * m[k] / (np.sqrt(s[k]) + floor)
