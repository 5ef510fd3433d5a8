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
from sparkrec.models.mf import MF
from sparkrec.models.recommender import Recommender
from sparkrec.models.rows import Rows
from sparkrec.training.batches import Batch

Loss: TypeAlias = Callable[[Batch, Tensor], Tensor]
"""Of a batch and its scores (b, k): a sum over the positives."""


class RowGradients(NamedTuple):
    """Rows of a table that a batch read, ascending, and the gradients by them: (u,) int64 and (u, d) float32."""

    rows: I64
    gradients: F32


class Gradients(NamedTuple):
    """What a batch says of a model. The gradients of its dense parameters are in their `grad`."""

    loss: Tensor
    users: RowGradients
    items: RowGradients


def by_autograd(
    model: Recommender, batch: Batch, items: Callable[[Batch], Tensor], loss: Loss, settings: TrainingSettings
) -> Gradients:
    """Of any model; `items` says which are scored, (b, k) or (1, k). Divided by the positives of all processes."""
    total = torch.zeros(())
    for part in batch.parts(settings.accumulate):
        mine = loss(part, model.score(torch.from_numpy(part.users), items(part)))
        for rate, table in ((settings.user_l2, model.users), (settings.item_l2, model.items)):
            if rate:
                mine = mine + rate * table.squares()
        mine = mine / batch.total
        mine.backward()
        total += mine.detach()
    return Gradients(total, *(_summed(table) for table in (model.users, model.items)))


def of_inner_products(model: MF, batch: Batch, loss: Loss, settings: TrainingSettings) -> Gradients:
    """The same of MF: torch differentiates by the scores, `kernels.factors` by the rows."""
    x, w = model.users.weight.numpy(), model.items.weight.numpy()
    scores = torch.from_numpy(factors.inner_products(x, w, batch.users, batch.items)) + model.constant.detach()
    mine = loss(batch, scores.requires_grad_()) / batch.total
    mine.backward()
    assert scores.grad is not None
    by_score = scores.grad.numpy()
    model.constant.grad = scores.grad.sum()
    users = RowGradients(*factors.user_gradients(w, batch.users, batch.items, by_score, len(x)))
    items = RowGradients(*factors.item_gradients(x, batch.users, batch.items, by_score, len(w)))
    total = mine.detach()
    for rate, table, each, read in (
        (settings.user_l2, x, users, batch.users),
        (settings.item_l2, w, items, batch.items),
    ):
        if rate:
            total = total + _shrink(table, each, read, rate / batch.total)
    return Gradients(total, users, items)


def _shrink(table: F32, found: RowGradients, read: I64 | I32, rate: float) -> float:
    """Add the gradient of rate times the sum of squares of the rows that were `read`; that sum."""
    times = np.bincount(read.ravel(), minlength=len(table))[found.rows].astype(np.float32)
    rows = table[found.rows]
    np.add(found.gradients, (2.0 * rate) * times[:, None] * rows, out=found.gradients)
    return float(rate * (times @ np.einsum("nd,nd->n", rows, rows)))


def _summed(table: Rows) -> RowGradients:
    ids, gradients = table.take()
    return RowGradients(*embedding.summed(ids.numpy(), gradients.numpy(), len(table.weight)))
