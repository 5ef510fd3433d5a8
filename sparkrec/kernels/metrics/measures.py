"""Every metric of a user by its name: a sum and a weight for each user of a batch.

The value over users is the sum of the sums over the sum of the weights. Of a mean over users the weight is 1, and 0 of
a user that the metric is not defined of; of a metric over rows it is the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparkrec.kernels.arrays import F32, F64, I64, Lists
from sparkrec.kernels.metrics import lists, scored
from sparkrec.kernels.metrics.accuracy import accuracy
from sparkrec.kernels.metrics.hits import Hits, find_hits
from sparkrec.kernels.metrics.sampled import corrected

CORRECTED = "corrected_"
"""Prefix of a metric with a cutoff, estimated for the whole catalogue from lists of sampled candidates."""


class ItemFacts(NamedTuple):
    """What is known of items, by ascending id; what no metric asks for may be empty."""

    ids: I64
    share: F64
    """(m,) of the users who had it before, above 0."""
    place: I64
    """(m,) of each item by popularity, the most popular 1; of equally popular ones the lower id first."""
    vectors: F32
    """(m, d)"""
    categories: Lists
    """(indptr (m + 1,), category numbers)"""


class Relevant(NamedTuple):
    """What is relevant to users: lists (indptr, items), items ascending."""

    items: Lists
    gains: F64
    """Above 0."""
    auc_share: F64 | None
    """The share of irrelevant candidates that each item beats, if that is known of more than the list."""
    rated: Lists
    """Items with a relevance of any size."""
    ratings: F64


class Batch(NamedTuple):
    """Users, and what they are measured by; what no metric asks for may be empty."""

    ranked: Lists
    """(indptr, items), best first."""
    scores: F64
    """Of what is ranked."""
    clicked: NDArray[np.bool_]
    """Of what is ranked, whether it is relevant at all: `relevant` may be a part of that."""
    relevant: Relevant
    listed: Lists
    """What is ranked as rows of the catalogue."""
    before: Lists
    """(indptr, rows of the catalogue), what users had before."""


Sums = tuple[F64, F64]
"""(u,) sums and (u,) weights."""

OF_LISTS: dict[str, Callable[[Batch, Hits, ItemFacts, int], F64]] = {
    "novelty": lambda batch, _, items, k: lists.novelty(batch.listed, items.share, k),
    "popularity": lambda batch, _, items, k: lists.popularity(batch.listed, items.share, k),
    "serendipity": lambda batch, hits, items, k: lists.serendipity(batch.listed, hits, items.place, k),
    "diversity": lambda batch, _, items, k: lists.diversity(batch.listed, items.vectors, k),
    "category_diversity": lambda batch, _, items, k: lists.category_diversity(batch.listed, items.categories, k),
    "miscalibration": lambda batch, _, items, k: lists.miscalibration(batch.listed, batch.before, items.categories, k),
}
"""At a cutoff: what lists are like."""
LIFT = "popularity_lift"
"""At a cutoff, of all users together."""
OF_SCORES = ("auc", "grouped_auc", "log_loss", "rmse", "mae")
"""Without a cutoff."""


def sums(batch: Batch, wanted: Sequence[tuple[str, int | None]], items: ItemFacts, size: int) -> Sums:
    """(u, m) sums and weights of metrics by name and cutoff.

    size  of the catalogue that sampled candidates are from, for corrected metrics
    Raises NotOneRelevant.
    """
    hits = find_hits(batch.ranked, batch.relevant.items, batch.relevant.gains)
    total, weight = np.zeros((2, len(hits.n_relevant), len(wanted)))
    for at, (name, k) in enumerate(wanted):
        total[:, at], weight[:, at] = _sums(batch, hits, name, k or 0, items, size)
    return total, weight


def _sums(batch: Batch, hits: Hits, name: str, k: int, items: ItemFacts, size: int) -> Sums:
    if name in OF_SCORES:
        return _of_scores(batch, name)
    counted = hits.n_relevant > 0
    if name == LIFT:
        everything = int(np.diff(batch.before[0]).max(initial=0))
        own = lists.popularity(batch.listed, items.share, k)
        before = lists.popularity(batch.before, items.share, everything)
        there = counted & ~np.isnan(own + before)
        return np.where(there, own - before, 0.0), np.where(there, before, 0.0)
    if name in OF_LISTS:
        value = np.where(counted, OF_LISTS[name](batch, hits, items, k), np.nan)
    elif name.startswith(CORRECTED):
        value = _corrected(hits, name.removeprefix(CORRECTED), k, size)
    else:
        value = accuracy(hits, name, k or None)
    there = ~np.isnan(value)
    return np.where(there, value, 0.0), there.astype(np.float64)


def _of_scores(batch: Batch, name: str) -> Sums:
    start, (items, _, share, rated, ratings) = batch.ranked[0], batch.relevant
    if name in ("rmse", "mae"):
        return scored.errors(batch.ranked, batch.scores, rated, ratings, 2 if name == "rmse" else 1)
    if name == "auc":
        share = scored.auc_shares(batch.ranked, batch.scores, items, batch.clicked) if share is None else share
        return scored.auc(share, items)
    return {"grouped_auc": scored.grouped_auc, "log_loss": scored.log_loss}[name](start, batch.scores, batch.clicked)


class NotOneRelevant(ValueError):
    """Users with more relevant items than the one that a corrected metric is about."""

    def __init__(self, users: int) -> None:
        super().__init__(f"candidates: found {users} users with more than one relevant item")
        self.users = users


def is_of_items(name: str) -> bool:
    """Whether a metric can be of some of the relevant items only."""
    return name not in OF_LISTS and name not in (LIFT, "grouped_auc", "log_loss")


def _corrected(hits: Hits, name: str, k: int, size: int) -> F64:
    """NaN for users without relevant items. An item that is not listed is below all."""
    if wrong := int((hits.n_relevant > 1).sum()):
        raise NotOneRelevant(wrong)
    value = np.where(hits.n_relevant > 0, 0.0, np.nan)
    of_hits = hits.length[hits.user]
    for length in np.unique(of_hits).tolist():
        own = of_hits == length
        value[hits.user[own]] = worth(name, k, size, length - 1)[hits.place[own] - 1]
    return value


@lru_cache(maxsize=256)
def worth(name: str, k: int, catalogue: int, negatives: int) -> F64:
    """(n + 1,) what each place among so many sampled negatives is worth in a metric of the catalogue."""
    place = np.arange(1, k + 1)
    one = np.ones(k, np.int64)
    start = np.arange(k + 1)
    alone = Hits(np.arange(k), place, one, np.ones(k), one, place, (start, np.ones(k)))
    values = accuracy(alone, name, k)
    if 0 < negatives < catalogue - 1:
        return corrected(values, catalogue, negatives)
    return np.concatenate((values, np.zeros(max(negatives + 1 - k, 0))))  # all there are, or none to tell by
