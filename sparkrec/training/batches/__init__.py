"""The batches of an epoch, by what their unit is: pairs, sequences, contexts, users."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from sparkrec.config import TrainingSettings
from sparkrec.kernels.gradients.negatives import popularity
from sparkrec.models.base.recommender import Recommender, Unit
from sparkrec.shards import Shards
from sparkrec.training.batches.contexts import ContextBatches
from sparkrec.training.batches.pairs import Batches
from sparkrec.training.batches.sequences import SequenceBatches
from sparkrec.training.batches.users import UserBatches
from sparkrec.training.collective import Collective
from sparkrec.training.losses import DRAWN

_OF_UNIT: dict[Unit, Callable[[Batches, Any], Batches]] = {
    "pairs": lambda pairs, _: pairs,
    "sequences": SequenceBatches.of,
    "contexts": ContextBatches.of,
    "users": UserBatches.of,
}


def batches_of(
    model: Recommender, shards: Shards, settings: TrainingSettings, seed: int, collective: Collective, by_kernel: bool
) -> tuple[Batches, int]:
    """How the shards of this process become the batches of a model, and how many users of all processes are in none,
    since there is no negative to draw for them."""
    alias = popularity(shards.item_counts, settings.popularity_power, settings.unseen_negatives)
    draws = settings.negatives if settings.loss in DRAWN else 0
    in_batch = settings.negative_sampling == "batch" and draws > 0
    pairs = Batches(
        shards,
        collective.process_rank,
        collective.size,
        settings.batch,
        0 if in_batch else draws,
        alias,
        seed,
        in_batch,
        softmax=settings.loss == "softmax",
        paired=by_kernel,
    )
    batches = _OF_UNIT[model.unit](pairs, model)
    left_out = collective.sum(torch.from_numpy(batches.without_negatives()).double()).long().numpy()
    return replace(batches, left_out=left_out[:, 1]), int(left_out[:, 0].sum())
