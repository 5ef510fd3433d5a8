"""Gradients of a batch, row by row: by torch, or by hand where scores are inner products."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from sparkrec.config import TrainingSettings
from sparkrec.kernels import embedding, factors
from sparkrec.kernels.arrays import F32, I32, I64
from sparkrec.kernels.losses import PAIR_LOSSES
from sparkrec.models.mf import MF
from sparkrec.models.recommender import Recommender
from sparkrec.training.batches import Batch

Loss: TypeAlias = Callable[[Batch, Tensor], Tensor]
"""Of a batch and its scores (b, k): a sum over the positives."""


class RowGradients(NamedTuple):
    """Rows of a table that a batch read, ascending, and the gradients by them: (u,) long and (u, d) float32."""

    rows: Tensor
    gradients: Tensor


class Gradients(NamedTuple):
    """What a batch says of a model. The gradients of its dense parameters are in their `grad`."""

    loss: Tensor
    users: RowGradients
    items: RowGradients


def by_autograd(
    model: Recommender, batch: Batch, items: Callable[[Batch], Tensor], loss: Loss, settings: TrainingSettings
) -> Gradients:
    """Of any model; `items` says which are scored, (b, k) or (1, k). Divided by the positives of all processes."""
    device = model.users.weight.device
    total = torch.zeros((), device=device)
    for part in batch.parts(settings.accumulate):
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            scores = model.score(torch.from_numpy(part.users).to(device), items(part).to(device))
        mine = loss(part, scores.float())
        for rate, table in ((settings.user_l2, model.users), (settings.item_l2, model.items)):
            if rate:
                mine = mine + rate * table.squares()
        mine = mine / batch.total
        mine.backward()
        total += mine.detach()
    return Gradients(total, *(summed(*table.take(), len(table.weight)) for table in (model.users, model.items)))


def of_inner_products(model: MF, batch: Batch, loss: Loss, settings: TrainingSettings) -> Gradients:
    """The same of MF: `kernels.losses`, or torch, differentiates by the scores, `kernels.factors` by the rows."""
    x, w = model.users.weight.numpy(), model.items.weight.numpy()
    scores = factors.inner_products(x, w, batch.users, batch.items, float(model.constant.detach()))
    total, by_score = _by_score(scores, batch, loss, settings)
    if model.constant.requires_grad:
        model.constant.grad = torch.tensor(by_score.sum())
    users = factors.user_gradients(w, batch.users, batch.items, by_score, len(x))
    items = factors.item_gradients(x, batch.users, batch.items, by_score, len(w))
    for rate, table, each, read in (
        (settings.user_l2, x, users, batch.users),
        (settings.item_l2, w, items, batch.items),
    ):
        if rate:
            total += _shrink(table, each, read, rate / batch.total)
    return Gradients(torch.tensor(total), *(RowGradients(*map(torch.from_numpy, each)) for each in (users, items)))


def _by_score(scores: F32, batch: Batch, loss: Loss, settings: TrainingSettings) -> tuple[float, F32]:
    """The loss a positive of all processes, and its derivatives by the scores."""
    if settings.loss in PAIR_LOSSES:
        by_score = np.empty_like(scores)
        given = scores, batch.values, batch.confidence, settings.negative_weight, 1.0 / batch.total, by_score
        return PAIR_LOSSES[settings.loss](*given), by_score
    leaf = torch.from_numpy(scores).requires_grad_()
    mine = loss(batch, leaf) / batch.total
    mine.backward()
    assert leaf.grad is not None
    return float(mine), leaf.grad.numpy()


def summed(ids: Tensor, gradients: Tensor, n_rows: int) -> RowGradients:
    """The different ids (b,) of a table of n_rows, ascending, and the sum of the gradients (b, d) of each."""
    if ids.device.type == "cpu":
        return RowGradients(*map(torch.from_numpy, embedding.summed(ids.numpy(), gradients.numpy(), n_rows)))
    rows, inverse = ids.unique(return_inverse=True)
    return RowGradients(rows, gradients.new_zeros(len(rows), gradients.shape[1]).index_add_(0, inverse, gradients))


def _shrink(table: F32, found: tuple[I64, F32], read: I64 | I32, rate: float) -> float:
    """Add the gradient of rate times the sum of squares of the rows that were `read`; that sum."""
    keys, gradients = found
    times = np.bincount(read.ravel(), minlength=len(table))[keys].astype(np.float32)
    rows = table[keys]
    gradients += (2.0 * rate) * times[:, None] * rows
    return float(rate * (times @ np.einsum("nd,nd->n", rows, rows)))
