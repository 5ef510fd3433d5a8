"""Gradients of items and those around them: skip-gram and continuous bags (Mikolov et al. 2013), by sequence.

Rows of items are (v, o), as an event and as an answer. Of the event i of a sequence, with its reach r and the others j
that are at most r places from it, and with negatives n of i drawn at random:

    skip-gram   sum_j [softplus(-<v_j, o_i>) + sum_n softplus(<v_j, o_n>)]
    bags        softplus(-<m, o_i>) + sum_n softplus(<m, o_n>),   m = mean_j v_j

All pairs of an event share its negatives (Ji et al. 2016): the products are of small matrices that are in the cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from sparkrec.kernels.arrays import F32, I32, I64
from sparkrec.kernels.dense import REGROUPED


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


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def add_gradients(items: F32, contexts: Contexts, bags: bool, scale: float, sums: F32) -> float:
    """The loss of a batch times `scale`; its gradients are added to the sums.

    items  (m, 2 d) float32
    sums   (v, 2 d) float32, a row for each of `contexts.items`
    """
    d, k = items.shape[1] // 2, contexts.item.shape[1]
    mean, of_mean = np.empty((1, d), np.float32), np.empty((1, d), np.float32)
    known, of_known = np.empty((0, d), np.float32), np.empty((0, d), np.float32)
    answers, of_answers = np.empty((k, d), np.float32), np.empty((k, d), np.float32)
    slopes = np.empty(k, np.float32)
    total = 0.0
    for s in range(len(contexts.start) - 1):
        begin, end = contexts.start[s], contexts.start[s + 1]
        n = end - begin
        if n > len(known):
            known, of_known = np.empty((2 * n, d), np.float32), np.empty((2 * n, d), np.float32)
        for i in range(n):
            for at in range(d):
                known[i, at] = items[contexts.item[begin + i, 0], at]
                of_known[i, at] = 0.0
        for i in range(n):
            e = begin + i
            first, last = max(i - contexts.reach[e], 0), min(i + contexts.reach[e], n - 1)
            around = last - first
            if around == 0:
                continue
            for j in range(k):
                for at in range(d):
                    answers[j, at] = items[contexts.item[e, j], d + at]
                    of_answers[j, at] = 0.0
            if bags:
                for at in range(d):
                    value = -known[i, at]
                    for j in range(first, last + 1):
                        value += known[j, at]
                    mean[0, at] = value / around
                    of_mean[0, at] = 0.0
                total += _pairs(mean, of_mean, 0, answers, of_answers, slopes, scale)
                for at in range(d):
                    share = of_mean[0, at] / around
                    of_known[i, at] -= share
                    for j in range(first, last + 1):
                        of_known[j, at] += share
            else:
                for j in range(first, last + 1):
                    if j != i:
                        total += _pairs(known, of_known, j, answers, of_answers, slopes, scale)
            for j in range(k):
                for at in range(d):
                    sums[contexts.place[e, j], d + at] += of_answers[j, at]
        for i in range(n):
            for at in range(d):
                sums[contexts.place[begin + i, 0], at] += of_known[i, at]
    return total


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def _pairs(known: F32, of_known: F32, j: Any, answers: F32, of_answers: F32, slopes: F32, scale: float) -> Any:
    """The loss of row j of `known` with all answers, the first of which is right; adds the gradients."""
    k, d = answers.shape
    total = 0.0
    for a in range(k):
        score = np.float32(0.0)
        for at in range(d):
            score += known[j, at] * answers[a, at]
        side = np.float32(-1.0) if a == 0 else np.float32(1.0)
        small = np.exp(-abs(score))
        ahead = side * score > 0.0
        total += np.log1p(small) + (abs(score) if ahead else np.float32(0.0))
        slopes[a] = scale * side * (np.float32(1.0) if ahead else small) / (np.float32(1.0) + small)
    for a in range(k):
        slope = slopes[a]
        for at in range(d):
            of_known[j, at] += slope * answers[a, at]
            of_answers[a, at] += slope * known[j, at]
    return scale * total
