"""The network of a run before its first step, as it is on every process whatever their number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sparkrec.config import Parent, TrainingSettings
from sparkrec.fields import FieldSchema
from sparkrec.kernels.arrays import I64
from sparkrec.kernels.random import normal_rows
from sparkrec.models.base.layers import BatchNorm
from sparkrec.models.base.recommender import Recommender, Sizes
from sparkrec.models.base.settings import NetworkSettings
from sparkrec.shards import Shards
from sparkrec.training.collective import Collective, summed_with_gradients
from sparkrec.training.devices import own_device
from sparkrec.training.warm_start import start_from


def begin(
    settings: NetworkSettings,
    shards: Shards,
    users: I64,
    seed: int,
    parents: Sequence[Parent],
    collective: Collective,
) -> Recommender:
    """A network with random or its parents' weights, on the device of this process.

    users  ids of the rows of its table of users
    """
    training: TrainingSettings = settings.training
    sizes = Sizes(len(users), shards.n_items, shards.layout or FieldSchema(), shards.length)
    model: Recommender = settings.network(sizes)
    model.initialize(torch.Generator().manual_seed(seed))
    for table, ids, stream in (
        (model.users, users, 2 * seed),
        (model.items, np.arange(len(model.items.weight)), 2 * seed + 1),
    ):
        start = training.init_scale * normal_rows(stream, ids, table.weight.shape[1])
        table.weight.copy_(torch.from_numpy(start.astype(np.float32)))
    if parents:
        start_from(model, parents, users)
    model.to(own_device(training, collective.local_rank))
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.sum_over_processes = lambda values: summed_with_gradients(values, collective)
    return model
