"""A model's rankings of held-out items, by a protocol, as tables that `evaluation` measures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame

from sparkrec.config import FullRanking, GivenCandidates, Protocol, SampledNegatives
from sparkrec.kernels.hashing import spark_hash
from sparkrec.kernels.metrics.measures import CORRECTED
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.evaluation.candidates import KNOWN, ListKnown, SampleCandidates
from sparkrec.spark.evaluation.evaluate import METRICS, metric_rows
from sparkrec.spark.evaluation.ranking_tasks import (
    AucShares,
    CountTargets,
    DrawLists,
    OrBelow,
    Popularity,
)
from sparkrec.spark.evaluation.request import EvaluationRequest, check_names, check_needs
from sparkrec.spark.evaluation.segments import LabelRows
from sparkrec.spark.in_place import carry_out, count, holding, write
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.platform.few import narrowed
from sparkrec.spark.retrieval.topk import rank, score_lists
from sparkrec.spark.runner import Rows

log = logging.getLogger(__name__)

_CORRECTED = ("hit_rate", "ndcg", "mrr")
"""What sampled negatives say of full ranking, at each cutoff."""
_EXAMPLE = 10
"""Items of a list that serves as an example."""
_CELLS = 4 << 20
"""Scores of candidates in one matrix."""
MetricRow: TypeAlias = tuple[Any, ...]
"""As of `evaluate.metric_rows`."""


class Unrankable(NamedTuple):
    """Held-out pairs of user and item that are misses whatever the model says."""

    pairs: int
    """All that are held out."""
    no_list: int
    """Of users for whom the model has no list."""
    unknown: int
    """Of items that it does not have."""
    seen: int
    """Of items that the user had before, which full ranking leaves out."""


class RankingMetrics(NamedTuple):
    """What a model's rankings are worth."""

    rows: list[MetricRow]
    lists: dict[int, list[int]]
    """Of a few users."""
    unrankable: Unrankable | None
    """None: under full ranking without AUC."""


@dataclass(frozen=True)
class RankingRequest:
    """What to measure of a model's rankings."""

    protocol: Protocol
    cutoffs: Sequence[int]
    metrics: Sequence[str] = METRICS
    auc: bool = True
    bootstrap: int = 0
    """Samples of users; see `evaluation.evaluate`."""
    users_to: str | None = None
    """Folder for what each user contributes: (user, a column for each metric, as `ndcg@10`)."""
    examples: int = 0
    """Users whose lists are given back, under full ranking."""

    @property
    def full(self) -> bool:
        return isinstance(self.protocol, FullRanking)


def check_metrics(protocol: Protocol, metrics: Sequence[str]) -> None:
    """Raise EvaluateError for a metric that does not exist, or that `measure_rankings` cannot have by this protocol."""
    check_names(metrics)
    known = {"popularity", "catalogue"}
    if not isinstance(protocol, FullRanking):
        known.add("score")
    if isinstance(protocol, SampledNegatives):
        known.add("sampled_from")
    check_needs(metrics, known)


def measure_rankings(
    model: Model,
    dataset: Dataset,
    truth: DataFrame,
    targets: DataFrame | None,
    seen: DataFrame | None,
    segments: int,
    request: RankingRequest,
) -> RankingMetrics:
    """Lists of the users with held-out rows, measured.

    truth    (user, item, user_group, item_group) held-out rows
    targets  (user, item, score) of them, where the AUC of full ranking is asked for
    seen     (user, item) what users had before; None: nothing
    """
    metrics, protocol, sampled_from = [*request.metrics, *(["auc"] if request.auc else [])], request.protocol, None
    with holding() as hold:
        relevant, users, whom = carry_out("metrics", partial(_truth, segments=segments), truth)
        if isinstance(protocol, FullRanking):
            if targets is not None:
                targets = carry_out("metrics", _or_below, targets)
            exclude = seen if protocol.exclude_seen else None
            lists = hold(rank(model, max(request.cutoffs), whom, exclude=exclude, targets=targets))
            if targets is not None:
                relevant = carry_out("metrics", _with_auc_shares, relevant, lists)
            recommendations = carry_out("metrics", lambda rows: rows.select("user", item="items").frame(), lists)
            metrics += ["coverage", "novelty"]
        else:
            scored = score_lists(model, _candidates(dataset, truth, whom, protocol))
            lists = recommendations = hold(carry_out("metrics", lambda rows: rows.map_rows(OrBelow()).frame(), scored))
            if isinstance(protocol, SampledNegatives) and carry_out("metrics", _alone, truth):
                metrics += [CORRECTED + name for name in _CORRECTED]
                sampled_from = count("metrics", narrowed(dataset.items, "item"))
                if near := [k for k in request.cutoffs if 2 * k > protocol.negatives]:
                    n, chance = protocol.negatives, min(max(near) / (protocol.negatives + 1), 1.0)
                    log.warning(
                        "cutoff %d of %d negatives: chance has a hit rate of %.2f; sample more", max(near), n, chance
                    )
        names, items = tuple(dict.fromkeys(metrics)), _item_popularity(dataset)
        measured = EvaluationRequest(
            recommendations, relevant, names, tuple(request.cutoffs), items=items, sampled_from=sampled_from
        )
        rows = metric_rows(measured, measured.totals(users, request.bootstrap))
        if request.users_to is not None:
            titles = ["user", *(metric.title for metric in measured.user_metrics)]
            write(measured.values(), request.users_to, *titles)
        unrankable = None
        if request.full and request.auc:
            unrankable = carry_out("metrics", _unrankable_of_lists, truth, lists)
        elif not request.full:
            unrankable = carry_out("metrics", _unrankable, truth, lists, narrowed(model.items, "item"))
        examples: dict[int, list[int]] = {}
        if request.full and request.examples:
            examples = carry_out("metrics", partial(_examples, n=request.examples), lists)
        return RankingMetrics(rows, examples, unrankable)


def _truth(truth: Rows, segments: int) -> tuple[DataFrame, ...]:
    """Of held-out rows: (user, item, segment) of their items, (user, segment) of their users, and (user)."""
    of_users = truth.map_rows(LabelRows("user", segments)).where_present("segment").select("user", "segment").distinct()
    relevant, whom = truth.map_rows(LabelRows("item", segments)), truth.select("user").distinct()
    return relevant.frame(), of_users.frame(), whom.frame()


def _or_below(targets: Rows) -> DataFrame:
    """An item that the model does not know is below all."""
    return targets.select("user", "item", "score").coalesced(score=pa.scalar(float("-inf"), pa.float32())).frame()


def _with_auc_shares(relevant: Rows, lists: Rows) -> DataFrame:
    """(user, item, segment, beaten) of relevant rows: `beaten` is the share of the candidates of a user that the item
    scores above, ties half."""
    shared = relevant.joined(lists.map_rows(AucShares()), "user", "item", every=True)
    return shared.coalesced(beaten=pa.scalar(0.5, pa.float64())).frame()


def _unrankable_of_lists(truth: Rows, lists: Rows) -> Unrankable:
    pairs = truth.select("user", "item").distinct().count()
    counts = lists.select("targets", "known", "rankable").map_rows(CountTargets()).table()
    listed, known, rankable = (pc.sum(counts[name]).as_py() or 0 for name in CountTargets.schema.names)
    return Unrankable(pairs, pairs - listed, listed - known, known - rankable)


def _examples(lists: Rows, n: int) -> dict[int, list[int]]:
    """The first items of the lists of a few users, whom a hash of their ids draws."""
    few = lists.select("user", "items").map_rows(DrawLists(n, _EXAMPLE)).table()
    first = few.take(pa.array(spark_hash(few["user"].to_numpy()).argsort(kind="stable")[:n]))
    return dict(zip(first["user"].to_pylist(), first["items"].to_pylist(), strict=True))


def _unrankable(truth: Rows, lists: Rows, items: Rows) -> Unrankable:
    pairs = truth.select("user", "item").distinct()
    listed = pairs.only(lists, "user")
    n, with_list, known = pairs.count(), listed.count(), listed.only(items, "item").count()
    return Unrankable(n, n - with_list, with_list - known, 0)


def _item_popularity(dataset: Dataset) -> DataFrame:
    """(item, popularity), of train users."""

    def plan(items: Rows, users: Rows) -> DataFrame:
        fitted = max(users.where_at_least("train_count", 1).count(), 1)
        return items.select("item", "train_count").map_rows(Popularity(fitted)).frame()

    return carry_out(
        "metrics",
        plan,
        *(narrowed(*each) for each in ((dataset.items, "item", "train_count"), (dataset.users, "train_count"))),
    )


def _alone(truth: Rows) -> bool:
    """Whether every user has one held-out item."""
    pairs = truth.select("user", "item").distinct()
    return pairs.count() == pairs.select("user").distinct().count()


def _candidates(
    dataset: Dataset, truth: DataFrame, whom: DataFrame, protocol: GivenCandidates | SampledNegatives
) -> DataFrame:
    """(user, item) to rank: the held-out items, and those to tell them from."""
    if isinstance(protocol, GivenCandidates):
        assert dataset.candidates is not None

        def add(truth: Rows, whom: Rows, given: Rows) -> DataFrame:
            return truth.select("user", "item").union(given.select("user", "item").only(whom, "user")).frame()

        return carry_out("candidates", add, truth, whom, narrowed(dataset.candidates, "user", "item"))
    size = max(1, _CELLS // protocol.negatives), 32 << 20

    def draw(truth: Rows, whom: Rows, items: Rows, *others: Rows) -> DataFrame:
        held_out = truth.select("user", "item")
        known = held_out
        for rows in others:
            known = known.union(rows.select("user", "item").only(whom, "user"))
        blocks = known.map_sorted(["user"], ListKnown(), then=["item"]).pack("user", KNOWN, size)
        catalogue = items.select("item").pack("item", {}, None)
        task = SampleCandidates(protocol.seed, protocol.negatives)
        return held_out.union(blocks.map_pairs(catalogue, task, "right")).frame()

    others = (dataset.train, dataset.validation, dataset.test) if protocol.exclude_seen else ()
    splits = (narrowed(rows, "user", "item") for rows in others)
    return carry_out("candidates", draw, truth, whom, narrowed(dataset.items, "item"), *splits)
