"""Softmax over all items without a score of every item in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CELLS, ROWS = 1 << 22, 64
"""Scores at a time, and the fewest rows of them."""


def streamed_softmax(x: Tensor, w: Tensor, target: Tensor, weight: Tensor, of: Tensor | None = None) -> Tensor:
    """sum_t weight_t (log sum_j exp <x_i, w_j> - <x_i, w_target_t>) with i = of_t, a scalar.

    x       (n, d), w (m, d)
    target  (e,) long, weight (e,) without gradient
    of      (e,) long, the row of x that each target is of; None: one each, in their order

    Scores are made for CELLS // m rows of x at once, or ROWS if m is larger: then they take what w of 64 columns does.
    The gradients are made with them, so that no score is computed twice.
    """
    found: Tensor = _Streamed.apply(x, w, target, weight, of)
    return found


class _Streamed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, target: Tensor, weight: Tensor, of: Tensor | None) -> Tensor:
        of_row = weight if of is None else weight.new_zeros(len(x)).index_add_(0, of, weight)
        by_x, by_w, loss = torch.empty_like(x), torch.zeros_like(w), x.new_zeros(())
        size = max(CELLS // len(w), ROWS)
        scratch = x.new_empty(min(size, len(x)), len(w))
        for first in range(0, len(x), size):
            some = slice(first, first + size)
            scores = torch.mm(x[some], w.T, out=scratch[: len(x[some])])
            largest = scores.amax(1, keepdim=True)
            sums = scores.sub_(largest).exp_().sum(1, keepdim=True)
            loss += (of_row[some] * (sums.log() + largest)[:, 0]).sum()
            share = of_row[some, None] / sums
            torch.mm(scores, w, out=by_x[some]).mul_(share)
            by_w.addmm_(scores.T, x[some] * share)
        asked, answers = x if of is None else x[of], w[target]
        loss -= (weight * (asked * answers).sum(1)).sum()
        if of is None:
            by_x -= weight[:, None] * answers
        else:
            by_x.index_add_(0, of, weight[:, None] * answers, alpha=-1.0)
        by_w.index_add_(0, target, weight[:, None] * asked, alpha=-1.0)
        ctx.save_for_backward(by_x, by_w)
        return loss

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        by_x, by_w = ctx.saved_tensors
        return slope * by_x, slope * by_w, None, None, None
