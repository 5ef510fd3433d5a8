"""A ranking metric on held-out examples, each process measuring its own users."""

from __future__ import annotations

import numpy as np
import torch

from sparkrec.config import StoppingSettings
from sparkrec.errors import TrainError
from sparkrec.kernels.arrays import I64
from sparkrec.kernels.metrics import ranking_metrics
from sparkrec.models.recommender import Recommender
from sparkrec.shards import Shard, Shards
from sparkrec.training.batches import Batches
from sparkrec.training.collective import Collective

CELLS = 1 << 22
"""Scores at a time."""


def validate(
    model: Recommender,
    shards: Shards,
    folder: str | None,
    batches: Batches,
    settings: StoppingSettings,
    collective: Collective,
) -> float:
    """Mean of the metric over users of the validation examples; all items but those of training are ranked."""
    if folder is None:
        raise TrainError("training.stopping needs a validation split, and the dataset has none: prepare it with one")
    held_out = Shards.open(folder)
    model.eval()
    total, n = 0.0, 0
    most = -(-settings.users // collective.size)
    with torch.no_grad():
        device = model.items.weight.device
        everything = torch.arange(shards.n_items, device=device)[None]
        offset = 0
        for number in batches.mine:
            known, wanted = shards.read(number), held_out.read(number)
            at = np.searchsorted(known.users, wanted.users).clip(max=max(len(known.users) - 1, 0))
            there = np.flatnonzero(known.users[at] == wanted.users) if len(known.users) else np.zeros(0, np.int64)
            there = there[: max(most - n, 0)]
            for part in np.array_split(there, max(-(-len(there) * shards.n_items // CELLS), 1)):
                rows = at[part]
                scores = model.score(torch.from_numpy(rows + offset).to(device), everything).cpu()
                lengths = np.diff(known.indptr)[rows]
                seen = _lists(known, rows)
                scores[np.repeat(np.arange(len(rows)), lengths), seen] = -torch.inf
                ranked = scores.topk(min(settings.k, shards.n_items), dim=1).indices.numpy()
                indptr = np.concatenate(([0], np.cumsum(np.diff(wanted.indptr)[part])))
                found = ranking_metrics(ranked, (indptr, _lists(wanted, part)), [ranked.shape[1]])[settings.metric]
                total, n = total + float(np.nansum(found)), n + int(np.isfinite(found).sum())
            offset += len(known.users)
    sums = collective.sum(torch.tensor([total, n], dtype=torch.float64))
    return float(sums[0] / sums[1]) if sums[1] else 0.0


def _lists(shard: Shard, rows: I64) -> I64:
    """The items of some users, one list after the other."""
    lists = [shard.items[shard.indptr[row] : shard.indptr[row + 1]] for row in rows]
    return np.concatenate([np.zeros(0, np.int64), *lists])
