"""Updating the rows of a table that a batch has touched, and no others.

The gradient of a table of embeddings is zero but in the rows of a batch. Optimisers that keep a state for each row are
lazy: a row's state and weight decay move when the row does (as SparseAdam of torch, and LazyAdam of TensorFlow).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from sparkrec.kernels.als.dense import prefetch
from sparkrec.kernels.arrays import F32, I32, I64, frozen
from sparkrec.kernels.csr import distinct

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


OPTIMIZERS = {"sgd": 0, "adagrad": 1, "rmsprop": 2, "adam": 3, "adamw": 3}
"""Their numbers, by name."""


class Rule(NamedTuple):
    """How rows move, g being the gradient and r the rate.

    sgd      v = momentum v + g; w -= r v
    adagrad  s += g^2; w -= r g / (sqrt(s) + epsilon) (Duchi et al. 2011)
    rmsprop  s = kept s + (1 - kept) g^2; w -= r g / (sqrt(s) + epsilon)
    adam     Kingma and Ba 2015, algorithm 1; with `decay`, AdamW (Loshchilov and Hutter 2019)
    """

    optimizer: int
    """Of OPTIMIZERS."""
    momentum: float
    """Of sgd, or beta1 of adam."""
    kept: float
    """Share of the mean square that a step keeps: beta2 of adam."""
    epsilon: float
    decay: float


@njit(cache=True, nogil=True)
def update(table: F32, first: F32, second: F32, ids: I64, gradients: F32, rule: Rule, step: int, rate: float) -> None:
    """Move the rows `ids` (different ones) at `step`, from 1.

    first, second  (n, d) float32, what the optimiser knows of each row: v, s, or m and s; one of them twice
    """
    moves = at_step(rule, step, rate)
    for at in range(len(ids)):
        if at + AHEAD < len(ids):
            prefetch(table, ids[at + AHEAD])
            prefetch(first, ids[at + AHEAD])
            if rule.optimizer == 3:
                prefetch(second, ids[at + AHEAD])
        move(table, first, second, ids[at], gradients, at, rule, moves)


@njit(cache=True, nogil=True)
def at_step(rule: Rule, step: int, rate: float) -> tuple[float, float, float]:
    """Of a step: the rate, epsilon, and what a weight keeps of itself; adam's corrected for states that began as 0."""
    if rule.optimizer != 3:
        return rate, rule.epsilon, 1.0
    correction = np.sqrt(1 - rule.kept**step)
    return rate * correction / (1 - rule.momentum**step), rule.epsilon * correction, 1 - rate * rule.decay


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"})
def move(
    table: F32,
    first: F32,
    second: F32,
    row: int,
    gradients: F32,
    at: int,
    rule: Rule,
    moves: tuple[float, float, float],
) -> None:
    """Move one row by row `at` of the gradients, as `at_step` says."""
    w, a, b, g = table[row], first[row], second[row], gradients[at]
    rate, floor, stays = np.float32(moves[0]), np.float32(moves[1]), np.float32(moves[2])
    momentum, kept, rest = np.float32(rule.momentum), np.float32(rule.kept), np.float32(1 - rule.kept)
    if rule.optimizer == 0:
        for k in range(len(w)):
            a[k] = momentum * a[k] + g[k]
            w[k] -= rate * a[k]
    elif rule.optimizer == 1:
        for k in range(len(w)):
            a[k] += g[k] * g[k]
            w[k] -= rate * g[k] / (np.sqrt(a[k]) + floor)
    elif rule.optimizer == 2:
        for k in range(len(w)):
            a[k] = kept * a[k] + rest * g[k] * g[k]
            w[k] -= rate * g[k] / (np.sqrt(a[k]) + floor)
    else:
        new = np.float32(1 - rule.momentum)
        for k in range(len(w)):
            a[k] = momentum * a[k] + new * g[k]
            b[k] = kept * b[k] + rest * g[k] * g[k]
            w[k] = stays * w[k] - rate * a[k] / (np.sqrt(b[k]) + floor)
