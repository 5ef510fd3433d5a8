"""Gradients of items and those around them: skip-gram and continuous bags (Mikolov et al. 2013), by sequence.

Rows of items are (v, o), as an event and as an answer. Of the event i of a sequence, with its reach r and the others j
that are at most r places from it, and with negatives n of i drawn at random:

    skip-gram   sum_j [softplus(-<v_j, o_i>) + sum_n softplus(<v_j, o_n>)]
    bags        softplus(-<m, o_i>) + sum_n softplus(<m, o_n>),   m = mean_j v_j

All pairs of an event share its negatives, so that scores are products of small matrices (Ji et al. 2016); those of a
few events that follow one another are one product, of which some numbers are for nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from sparkrec.kernels.als.dense import REGROUPED, prefetch
from sparkrec.kernels.arrays import F32, I32, I64

BLOCK = 4
"""Events at a time."""


class Contexts(NamedTuple):
    """Sequences, one after the other, and what is predicted in them."""

    start: I64
    """(s + 1,) where each begins."""
    item: I32
    """(e, 1 + n) rows of the table: of each event, then of its negatives."""
    reach: I32
    """(e,) how far each looks to either side."""
    place: I32
    """(e, 1 + n) which of `items` each is."""
    items: I64
    """(v,) the different ones."""


class _Room(NamedTuple):
    """What a block needs, used again by the next one."""

    answers: F32
    scores: F32
    small: F32
    """exp -|score|"""
    bits: I32
    by_known: F32
    by_answers: F32
    shares: F32
    """Of the events around each, in its mean."""
    means: F32


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def add_gradients(items: F32, contexts: Contexts, bags: bool, scale: float, sums: F32) -> Any:
    """The loss of a batch times `scale`; its gradients are added to the sums.

    items  (m, 2 d) float32
    sums   (v, 2 d) float32, a row for each of `contexts.items`
    """
    start, item, reach, place, _ = contexts
    d, k, longest, furthest = items.shape[1] // 2, item.shape[1], 0, 1
    for s in range(len(start) - 1):
        longest = max(longest, start[s + 1] - start[s])
    for e in range(len(reach)):
        furthest = max(furthest, reach[e])
    rows, columns = BLOCK + 2 * furthest, BLOCK * k
    room = _Room(
        np.empty(columns * d, np.float32),
        np.empty(rows * columns, np.float32),
        np.empty(rows * columns, np.float32),
        np.empty(rows * columns, np.int32),
        np.empty(rows * d, np.float32),
        np.empty(columns * d, np.float32),
        np.empty(BLOCK * rows, np.float32),
        np.empty(BLOCK * d, np.float32),
    )
    table, of_table = items.reshape(-1, d), sums.reshape(-1, d)  # even rows are of events, odd ones of answers
    known, of_known = np.empty((longest, d), np.float32), np.empty((longest, d), np.float32)
    total = 0.0
    for s in range(len(start) - 1):
        begin, end = start[s], start[s + 1]
        for e in range(begin, end):
            _copy(table, 2 * item[e, 0], known, e - begin)
        of_known[: end - begin] = 0.0
        for first in range(begin, end, BLOCK):
            last = min(first + BLOCK, end)
            for e in range(last, min(last + BLOCK, len(item))):
                for j in range(k):
                    prefetch(table, 2 * item[e, j] + 1)
                    prefetch(of_table, 2 * place[e, j] + 1)
            total += _block(table, contexts, begin, end, first, last, bags, scale, known, of_known, room)
            by_answers = room.by_answers[: (last - first) * k * d].reshape(-1, d)
            for e in range(first, last):
                for j in range(k):
                    _add(by_answers, (e - first) * k + j, of_table, 2 * place[e, j] + 1)
        for e in range(begin, end):
            _add(of_known, e - begin, of_table, 2 * place[e, 0])
    return scale * total


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _block(
    table: F32,
    contexts: Contexts,
    begin: int,
    end: int,
    first: int,
    last: int,
    bags: bool,
    scale: float,
    known: F32,
    of_known: F32,
    room: _Room,
) -> Any:
    """The loss of events first ... last - 1 of the sequence begin ... end - 1; derivatives by its vectors are added to
    `of_known`, those by the answers are left in the room."""
    item, reach = contexts.item, contexts.reach
    d, k, n = table.shape[1], item.shape[1], last - first
    low, high = end, begin
    answers = room.answers[: n * k * d].reshape(n * k, d)
    for e in range(first, last):
        low, high = min(low, max(e - reach[e], begin)), max(high, min(e + reach[e] + 1, end))
        for j in range(k):
            _copy(table, 2 * item[e, j] + 1, answers, (e - first) * k + j)
    left = known[low - begin : high - begin]
    shares = room.shares[: n * len(left)].reshape(n, len(left))
    if bags:
        for e in range(first, last):
            around = min(e + reach[e] + 1, end) - max(e - reach[e], begin) - 1
            for j in range(low, high):
                near = j != e and abs(j - e) <= reach[e]
                shares[e - first, j - low] = np.float32(1.0 / around if near else 0.0)
        means = room.means[: n * d].reshape(n, d)
        np.dot(shares, left, means)
        left = means
    rows, columns = len(left), n * k
    scores = room.scores[: rows * columns].reshape(rows, columns)
    np.dot(left, answers.T, scores)
    _exponentials(room.scores, room.small, room.bits, rows * columns)
    small = room.small[: rows * columns].reshape(rows, columns)
    total = 0.0
    for row in range(rows):
        for e in range(first, last):
            if bags:
                predicts = row == e - first and end - begin > 1
            else:
                predicts = low + row != e and abs(low + row - e) <= reach[e]
            column = (e - first) * k
            if predicts:
                total += _slopes(scores, small, row, column, column + k, scale)
            else:
                scores[row, column : column + k] = 0.0
    by_left = room.by_known[: rows * d].reshape(rows, d)
    np.dot(scores, answers, by_left)
    np.dot(scores.T, left, room.by_answers[: columns * d].reshape(columns, d))
    if bags:
        for e in range(first, last):
            for j in range(low, high):
                share = shares[e - first, j - low]
                for at in range(d):
                    of_known[j - begin, at] += share * by_left[e - first, at]
    else:
        for row in range(rows):
            _add(by_left, row, of_known, low - begin + row)
    return total


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _slopes(scores: F32, small: F32, row: int, first: int, last: int, scale: float) -> Any:
    """The loss of the answers first ... last - 1 of a row, the first of which is right; their scores become the
    derivatives."""
    zero, one, factor = np.float32(0.0), np.float32(1.0), np.float32(scale)
    score, tiny = scores[row, first], small[row, first]
    loss: Any = max(-score, zero)
    product: Any = np.float64(one + tiny)
    scores[row, first] = -factor * (one if score < zero else tiny) / (one + tiny)
    for at in range(first + 1, last):
        score, tiny = scores[row, at], small[row, at]
        loss += max(score, zero)
        product *= np.float64(one + tiny)  # of softplus(s) = max(s, 0) + log(1 + exp -|s|); no more than 2 each
        scores[row, at] = factor * (one if score > zero else tiny) / (one + tiny)
        if product > 1e300:
            loss, product = loss + np.float32(np.log(product)), 1.0
    return loss + np.log(product)


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _exponentials(x: F32, out: F32, bits: I32, n: int) -> None:
    """exp -|x| of the first n, to 1e-6: 2^-w exp(-f) of whole and fractional parts, in loops without a call."""
    scale = bits.view(np.float32)
    for at in range(n):
        t = min(abs(x[at]) * np.float32(1.4426950408889634), np.float32(126.0))
        whole = np.int32(t)
        bits[at] = (np.int32(127) - whole) << np.int32(23)
        f = (np.float32(whole) - t) * np.float32(0.6931471805599453)
        value = np.float32(1.0 / 5040.0) * f + np.float32(1.0 / 720.0)
        value = value * f + np.float32(1.0 / 120.0)
        value = value * f + np.float32(1.0 / 24.0)
        value = value * f + np.float32(1.0 / 6.0)
        value = value * f + np.float32(0.5)
        value = value * f + np.float32(1.0)
        out[at] = value * f + np.float32(1.0)
    for at in range(n):
        out[at] *= scale[at]


@njit(cache=True, nogil=True)
def _copy(source: F32, of: Any, target: F32, to: Any) -> None:
    for at in range(source.shape[1]):
        target[to, at] = source[of, at]


@njit(cache=True, nogil=True)
def _add(source: F32, of: Any, target: F32, to: Any) -> None:
    for at in range(source.shape[1]):
        target[to, at] += source[of, at]
