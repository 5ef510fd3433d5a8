"""Gradients of a batch, row by row: by torch, or by a kernel for the models that have one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from sparkrec.config import TrainingSettings
from sparkrec.kernels.arrays import F32, I64, Scratch
from sparkrec.kernels.gradients import contexts as context_kernel
from sparkrec.kernels.gradients import embedding, factors, field_towers, towers
from sparkrec.kernels.gradients import field_pairs as field_kernel
from sparkrec.kernels.gradients.losses import PAIR_LOSSES, Goal
from sparkrec.models.base.field_model import FieldModel
from sparkrec.models.base.recommender import Recommender
from sparkrec.models.deepfm import DeepFM
from sparkrec.models.gmf import GMF
from sparkrec.models.item2vec import Item2Vec
from sparkrec.models.mf import MF
from sparkrec.models.mlp import MLP
from sparkrec.models.neumf import NeuMF
from sparkrec.training.batches.contexts import ContextBatch
from sparkrec.training.batches.pairs import Batch
from sparkrec.training.dense import Dense
from sparkrec.training.features import FeatureReader, field_pairs

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


def by_autograd(model: Recommender, batch: Batch, loss: Loss, settings: TrainingSettings) -> Gradients:
    """Of any model. Divided by the positives of all processes."""
    device = model.users.weight.device
    total = torch.zeros((), device=device)
    for part in batch.parts(settings.accumulate):
        mine = loss(part)
        for rate, table in ((settings.user_l2, model.users), (settings.item_l2, model.items)):
            if rate:
                mine = mine + rate * table.squares()
        mine = mine / batch.total
        mine.backward()
        total += mine.detach()
    return Gradients(total, *(summed(*table.take(), len(table.weight)) for table in (model.users, model.items)))


def by_field_kernel(
    model: FieldModel,
    dense: Dense,
    batch: Batch,
    users: I64,
    reader: FeatureReader,
    settings: TrainingSettings,
    scratch: Scratch,
) -> Gradients:
    """`by_kernel` for models of features; `users` are the ids of the examples."""
    x: F32 = model.users.weight.numpy()
    w: F32 = model.items.weight.numpy()
    assert batch.pairs is not None
    pairs, rows = field_pairs(reader, batch, users)
    sums = scratch.zeros("users", len(batch.pairs.users), x.shape[1]), scratch.zeros("items", len(rows), w.shape[1])
    constant, scale = float(model.constant.detach()), 1.0 / batch.total
    goal, learned = goal_of(settings), int(model.constant.requires_grad)
    if isinstance(model, DeepFM):
        weights, by_weight = dense.weights[learned:].numpy(), dense.gradients[learned:].numpy()
        n_fields = model.n_query, model.n_item
        total, slope = field_towers.add_gradients(
            x, w, constant, model.layers, weights, n_fields, pairs, goal, model.weight_l2, scale, *sums, by_weight
        )
    else:
        total, slope = field_kernel.add_gradients(x, w, constant, pairs, goal, model.weight_l2, scale, *sums)
    if learned:
        dense.gradients[0] += slope
    of_users, of_items = (batch.pairs.users, sums[0]), (rows, sums[1])
    return Gradients(
        torch.tensor(total), *(RowGradients(*map(torch.from_numpy, each)) for each in (of_users, of_items))
    )


def by_kernel(
    model: Recommender, dense: Dense, batch: Batch, settings: TrainingSettings, scratch: Scratch
) -> Gradients:
    """The same, on one thread and without torch, where `has_kernel`. Those of rows live until the next call."""
    x: F32 = model.users.weight.numpy()
    w: F32 = model.items.weight.numpy()
    pairs = batch.pairs
    assert pairs is not None
    sums = scratch.zeros("users", len(pairs.users), x.shape[1]), scratch.zeros("items", len(pairs.items), w.shape[1])
    goal, scale = goal_of(settings), 1.0 / batch.total
    if isinstance(model, MF):
        total, by_constant = factors.add_gradients(x, w, float(model.constant.detach()), pairs, goal, scale, *sums)
        if len(dense.gradients):
            dense.gradients += by_constant
    else:
        assert isinstance(model, GMF | MLP | NeuMF)
        by_weight = dense.gradients.numpy()
        total = towers.add_gradients(x, w, model.layers, dense.weights.numpy(), pairs, goal, scale, *sums, by_weight)
    of_users, of_items = (pairs.users, sums[0]), (pairs.items, sums[1])
    return Gradients(
        torch.tensor(total), *(RowGradients(*map(torch.from_numpy, each)) for each in (of_users, of_items))
    )


def by_context_kernel(model: Item2Vec, batch: ContextBatch, scratch: Scratch) -> Gradients:
    """The same of item2vec."""
    w: F32 = model.items.weight.numpy()
    contexts = batch.contexts
    assert contexts is not None
    sums = scratch.zeros("items", len(contexts.items), w.shape[1])
    total = context_kernel.add_gradients(w, contexts, model.bags, 1.0 / batch.total, sums)
    nobody = RowGradients(torch.zeros(0, dtype=torch.long), torch.zeros(0, 0))
    return Gradients(torch.tensor(total), nobody, RowGradients(*map(torch.from_numpy, (contexts.items, sums))))


def goal_of(settings: TrainingSettings) -> Goal:
    """For the kernels."""
    return Goal(PAIR_LOSSES[settings.loss], settings.negative_weight, settings.user_l2, settings.item_l2)


def has_kernel(settings: Any) -> bool:
    """Whether `by_kernel` knows what NetworkSettings ask for: a loss of pairs on CPU, nothing random or rounded."""
    training = settings.training
    return (
        settings.kind in ("mf", "gmf", "mlp", "neumf", "lr", "fm", "deepfm")
        and training.loss in PAIR_LOSSES
        and training.negative_sampling == "items"
        and training.device == "cpu"
        and training.precision == "float32"
        and not getattr(settings, "dropout", 0.0)
        and not getattr(settings, "batch_norm", False)
    )


def summed(ids: Tensor, gradients: Tensor, n_rows: int) -> RowGradients:
    """The different ids (b,) of a table of n_rows, ascending, and the sum of the gradients (b, d) of each."""
    if ids.device.type == "cpu":
        return RowGradients(*map(torch.from_numpy, embedding.summed(ids.numpy(), gradients.numpy(), n_rows)))
    rows, inverse = ids.unique(return_inverse=True)
    return RowGradients(rows, gradients.new_zeros(len(rows), gradients.shape[1]).index_add_(0, inverse, gradients))
