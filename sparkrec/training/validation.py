"""Metrics on held-out examples, each process measuring its own users."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from sparkrec.config import StoppingSettings
from sparkrec.kernels.arrays import F64, I64
from sparkrec.kernels.csr import located
from sparkrec.kernels.metrics.accuracy import accuracy
from sparkrec.kernels.metrics.clicks import auc, log_loss
from sparkrec.kernels.metrics.hits import find_hits
from sparkrec.kernels.ragged import Ragged, starts_of
from sparkrec.models.base.recommender import Features, Recommender
from sparkrec.shards import Shard, Shards
from sparkrec.training.batches.pairs import Batches
from sparkrec.training.collective import Collective
from sparkrec.training.inputs.ids import InputReader

CELLS = 1 << 22
"""Numbers at a time: scores, times what a pair of rows has."""
VALUE_METRICS = ("auc", "log_loss", "rmse")
"""Of the values of held-out examples."""


def validate_ranking(
    model: Recommender | None,
    shards: Shards,
    held_out: Shards,
    batches: Batches,
    reader: InputReader,
    settings: StoppingSettings,
    collective: Collective,
) -> float:
    """Mean of the metric over users with held-out examples; all items are ranked, those of training left out as the
    settings say, in the context of a user's earliest held-out example. Users for whom that leaves nothing do not count.

    model  None: ranked by their numbers of examples
    """
    if model is not None:
        model.eval()
    total, n = 0.0, 0
    most = -(-settings.users // collective.size)
    cells = CELLS // (1 if model is None else reader.pair_size(model))
    popular = torch.from_numpy(shards.item_counts.astype(np.float32))
    with torch.no_grad():
        for known, wanted, at, there, offset in _shards(shards, held_out, batches):
            if settings.exclude_seen:
                there = there[known.positives.degrees[at[there]] < shards.n_items]
            there = there[: max(most - n, 0)]
            for part in np.array_split(there, max(-(-len(there) * shards.n_items // cells), 1)):
                rows = at[part]
                if model is None:
                    scores = popular.repeat(len(rows), 1)
                else:
                    features = reader.of_users(model, held_out, wanted, part)
                    scores = _all_scores(model, torch.from_numpy(rows + offset), shards.n_items, features)
                if settings.exclude_seen:
                    start, seen = _lists(known, rows)
                    scores[np.repeat(np.arange(len(rows)), np.diff(start)), seen] = -torch.inf
                best = scores.topk(min(settings.k, shards.n_items), dim=1)
                ranked = (best.values > -torch.inf).numpy()  # few may be left that are not of training
                lists = starts_of(ranked.sum(1)), best.indices.numpy()[ranked]
                found = accuracy(find_hits(lists, _lists(wanted, part)), settings.metric, settings.k)
                total, n = total + float(np.nansum(found)), n + int(np.isfinite(found).sum())
    sums = collective.sum(torch.tensor([total, n], dtype=torch.float64))
    return float(sums[0] / sums[1]) if sums[1] else 0.0


def _all_scores(model: Recommender, users: Tensor, n_items: int, features: Features | None) -> Tensor:
    """(b, m) scores of rows of users (b,) and all m items, in memory: by one product where they are inner products."""
    device = model.items.weight.device
    users, items = users.to(device), torch.arange(n_items, device=device)
    vectors = model.factors(users, items, features)
    scores = model.score(users, items[None], features) if vectors is None else vectors[0] @ vectors[1].T
    return scores.cpu()


def validate_values(
    model: Recommender,
    shards: Shards,
    held_out: Shards,
    batches: Batches,
    reader: InputReader,
    settings: StoppingSettings,
    collective: Collective,
) -> float:
    """The metric over all held-out examples of users that are trained on."""
    model.eval()
    parts = [torch.zeros(0, 2)]
    with torch.no_grad():
        for _, wanted, at, there, offset in _shards(shards, held_out, batches):
            examples = np.flatnonzero(np.isin(wanted.rows, there))
            size = max(CELLS // (64 * model.items.weight.shape[1]), 1)
            for first in range(0, len(examples), size):
                some = examples[first : first + size]
                scores = _scores(model, wanted, some, at[wanted.rows[some]] + offset, reader)
                parts.append(torch.stack((scores, torch.from_numpy(wanted.values[some])), 1))
    everyone = torch.cat(collective.gather(torch.cat(parts))).double().numpy()
    return value_metric(settings.metric, everyone[:, 0], everyone[:, 1])


def value_metric(metric: str, scores: F64, values: F64) -> float:
    """Of VALUE_METRICS."""
    if metric == "rmse":
        return float(np.sqrt(np.mean((scores - values) ** 2)))
    return auc(scores, values > 0) if metric == "auc" else log_loss(scores, values > 0)


def _scores(model: Recommender, wanted: Shard, at: I64, rows: I64, reader: InputReader) -> Tensor:
    device = model.items.weight.device
    items = wanted.items[at].astype(np.int64)[:, None]
    features = reader.of_examples(wanted, at, items)
    return model.score(torch.from_numpy(rows).to(device), torch.from_numpy(items).to(device), features)[:, 0].cpu()


def _shards(shards: Shards, held_out: Shards, batches: Batches) -> Iterator[tuple[Shard, Shard, I64, I64, int]]:
    """Of each shard of this process: its examples and those held out; at which of its users those of the held-out ones
    are, and which of these it has; and where its users begin in the table."""
    offset = 0
    for number in batches.mine:
        known, wanted = shards.read(number), held_out.read(number)
        at, there = located(wanted.users, known.users)
        yield known, wanted, at, np.flatnonzero(there), offset
        offset += len(known.users)


def _lists(shard: Shard, rows: I64) -> tuple[I64, I64]:
    """The items of some users, each once, one list after the other, and where each begins."""
    return Ragged(shard.positives.indptr, shard.positives.ids).take(rows)
