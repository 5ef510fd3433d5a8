"""Softmax over all items without a score of every item in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

CELLS = 1 << 22
"""Scores at a time."""


def streamed_softmax(x: Tensor, w: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """sum_i weight_i (log sum_j exp <x_i, w_j> - <x_i, w_target_i>), a scalar.

    x       (n, d), w (m, d)
    target  (n,) long, weight (n,) without gradient

    Scores are made for as many items at once as there is room for, CELLS numbers, and made again for the gradients: one
    product more, and memory of n + m rows.
    """
    found: Tensor = _Streamed.apply(x, w, target, weight)
    return found


class _Streamed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        total = x.new_full((len(x),), -torch.inf)
        for _, part in _parts(x, w):
            total = torch.logaddexp(total, (x @ part.T).logsumexp(1))
        ctx.save_for_backward(x, w, target, weight, total)
        return (weight * (total - (x * w[target]).sum(1))).sum()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, w, target, weight, total = ctx.saved_tensors
        weight = (slope * weight)[:, None]
        by_x, by_w = torch.zeros_like(x), torch.empty_like(w)
        for first, part in _parts(x, w):
            share = (x @ part.T).sub_(total[:, None]).exp_().mul_(weight)
            by_x.addmm_(share, part)
            torch.mm(share.T, x, out=by_w[first : first + len(part)])
        by_x -= weight * w[target]
        by_w.index_add_(0, target, weight * x, alpha=-1.0)
        return by_x, by_w, None, None


def _parts(x: Tensor, w: Tensor) -> Iterator[tuple[int, Tensor]]:
    size = max(CELLS // max(len(x), 1), 1)
    for first in range(0, len(w), size):
        yield first, w[first : first + size]
