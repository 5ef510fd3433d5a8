"""Gradients of a batch, row by row: by torch, or by the kernel that a model declares."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from sparkrec.config import TrainingSettings
from sparkrec.kernels.arrays import Scratch
from sparkrec.kernels.gradients import embedding
from sparkrec.kernels.gradients.losses import PAIR_LOSSES, Goal
from sparkrec.models.base.layers import BatchNorm
from sparkrec.models.base.recommender import KernelStep, Recommender
from sparkrec.training.batches.batch import Batch
from sparkrec.training.computed import ComputedTables
from sparkrec.training.dense import Dense
from sparkrec.training.inputs.ids import InputReader
from sparkrec.training.losses import ALL_ITEMS

Loss: TypeAlias = Callable[[Batch], Tensor]
"""Of a batch: a sum over the positives."""


class RowGradients(NamedTuple):
    """Rows of a table that a batch read, ascending, and the gradients by them: (u,) long and (u, d) float32."""

    rows: Tensor
    gradients: Tensor


class Gradients(NamedTuple):
    """What a batch says of a model. The gradients of its dense parameters are added to their `grad`."""

    loss: Tensor
    users: RowGradients
    items: RowGradients


def by_autograd(
    model: Recommender, batch: Batch, loss: Loss, settings: TrainingSettings, processes: int = 1
) -> Gradients:
    """Of any model. Divided by the positives of all processes.

    A loss over all items reads all their rows in each part of each process: their L2 is shared among these.
    """
    device = model.users.weight.device
    total = torch.zeros((), device=device)
    parts = list(batch.parts(settings.accumulate))
    readers = len(parts) * processes if settings.loss in ALL_ITEMS else 1
    for part in parts:
        mine = loss(part)
        for rate, table in ((settings.user_l2, model.users), (settings.item_l2 / readers, model.items)):
            if rate:
                mine = mine + rate * table.squares()
        mine = mine / batch.total
        mine.backward()
        total += mine.detach()
    return Gradients(total, *(summed(*table.take(), len(table.weight)) for table in (model.users, model.items)))


def through_tables(
    tables: ComputedTables, batch: Batch, loss: Loss, settings: TrainingSettings, processes: int
) -> Gradients:
    """Of a model that computes the rows that a batch reads: those of all rows that it learns. L2 is on these, as often
    as they are read. Called by all processes, as the model may sum over them."""
    model = tables.model
    learned = model.users.weight, model.items.weight
    assert tables.graph is not None
    for each in learned:
        each.requires_grad_()
    computed = tables.compute(tables.graph)
    with tables.reading(*(each.detach() for each in computed)):
        read = by_autograd(model, batch, loss, settings, processes)
    slopes = [torch.zeros_like(each) for each in computed]
    for slope, rows in zip(slopes, (read.users, read.items), strict=True):
        slope[rows.rows] = rows.gradients
    torch.autograd.backward(computed, slopes)
    of_all = []
    for each in learned:
        gradients = torch.zeros_like(each) if each.grad is None else each.grad
        of_all.append(RowGradients(torch.arange(len(each), device=each.device), gradients.contiguous()))
        each.grad = None
        each.requires_grad_(False)
    return Gradients(read.loss, *of_all)


def by_kernel(
    model: Recommender, dense: Dense, batch: Batch, reader: InputReader, settings: TrainingSettings, scratch: Scratch
) -> Gradients:
    """The same, on one thread and without torch, where `kernel_fits`. Those of rows live until the next call."""
    assert model.gradient_kernel is not None
    read = reader.for_kernel(batch)
    users, items = (
        scratch.zeros(name, len(rows), table.weight.shape[1])
        for name, rows, table in (("users", read.users, model.users), ("items", read.items, model.items))
    )
    weights = dense.weights.numpy(), dense.gradients.numpy()
    step = KernelStep(read.batch, goal_of(settings), 1.0 / batch.total, weights[0], users, items, weights[1])
    loss = torch.tensor(model.gradient_kernel(step))
    of_users, of_items = (read.users, users), (read.items, items)
    return Gradients(loss, *(RowGradients(*map(torch.from_numpy, each)) for each in (of_users, of_items)))


def goal_of(settings: TrainingSettings) -> Goal:
    """For the kernels."""
    return Goal(PAIR_LOSSES[settings.loss], settings.negative_weight, settings.user_l2, settings.item_l2)


def kernel_fits(model: Recommender, settings: TrainingSettings) -> bool:
    """Whether the model has a kernel that computes what the settings ask for: a loss of pairs on CPU, nothing random,
    and nothing rounded that a dense layer has made."""
    layers = list(model.modules())
    return (
        model.gradient_kernel is not None
        and model.computes_tables != "in steps"
        and settings.loss in PAIR_LOSSES
        and settings.negative_sampling == "items"
        and settings.device == "cpu"
        and (settings.precision == "float32" or not any(True for _ in model.parameters()))
        and not any(isinstance(layer, nn.Dropout | BatchNorm) for layer in layers)
    )


def summed(ids: Tensor, gradients: Tensor, n_rows: int) -> RowGradients:
    """The different ids (b,) of a table of n_rows, ascending, and the sum of the gradients (b, d) of each."""
    if ids.device.type == "cpu":
        return RowGradients(*map(torch.from_numpy, embedding.summed(ids.numpy(), gradients.numpy(), n_rows)))
    rows, inverse = ids.unique(return_inverse=True)
    return RowGradients(rows, gradients.new_zeros(len(rows), gradients.shape[1]).index_add_(0, inverse, gradients))
