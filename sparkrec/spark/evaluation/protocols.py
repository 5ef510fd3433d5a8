"""A model's rankings of held-out items, by a protocol, as tables that `evaluation` measures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple, TypeAlias

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec.config import FullRanking, GivenCandidates, Protocol, SampledNegatives
from sparkrec.kernels.metrics.measures import CORRECTED
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.evaluation.candidates import KNOWN, SampleCandidates
from sparkrec.spark.evaluation.evaluate import METRICS, metric_rows
from sparkrec.spark.evaluation.request import EvaluationRequest, check_names, check_needs
from sparkrec.spark.evaluation.segments import label
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.retrieval.topk import rank, score_lists
from sparkrec.spark.runner import map_pairs, pack

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
    relevant = truth.select("user", "item", label(segments, "item").alias("segment"))
    users = truth.select("user", label(segments, "user").alias("segment")).distinct().where("segment IS NOT NULL")
    if isinstance(protocol, FullRanking):
        if targets is not None:
            below = F.lit(float("-inf")).cast("float")
            targets = targets.select("user", "item", F.coalesce("score", below).alias("score"))
        exclude = seen if protocol.exclude_seen else None
        lists = rank(
            model, max(request.cutoffs), truth.select("user").distinct(), exclude=exclude, targets=targets
        ).persist()
        if targets is not None:
            relevant = relevant.join(_auc_shares(lists, targets), ["user", "item"], "left").fillna(0.5, ["beaten"])
        recommendations = lists.select("user", F.col("items").alias("item"))
        metrics += ["coverage", "novelty"]
    else:
        scored = score_lists(model, _candidates(dataset, truth, protocol))
        lists = scored.select(
            "user", F.col("items").alias("item"), F.transform("scores", _or_unranked).alias("score")
        ).persist()
        recommendations = lists
        if isinstance(protocol, SampledNegatives) and _alone(truth):
            metrics += [CORRECTED + name for name in _CORRECTED]
            sampled_from = dataset.items.count()
            if near := [k for k in request.cutoffs if 2 * k > protocol.negatives]:
                n, chance = protocol.negatives, min(max(near) / (protocol.negatives + 1), 1.0)
                log.warning(
                    "cutoff %d of %d negatives: chance has a hit rate of %.2f; sample more", max(near), n, chance
                )
    try:
        names, items = tuple(dict.fromkeys(metrics)), _item_popularity(dataset)
        measured = EvaluationRequest(
            recommendations, relevant, names, tuple(request.cutoffs), items=items, sampled_from=sampled_from
        )
        rows = metric_rows(measured, measured.totals(users, request.bootstrap))
        if request.users_to is not None:
            measured.values().drop("run").write.mode("overwrite").parquet(request.users_to)
        unrankable = _unrankable(model, truth, lists) if request.auc or not request.full else None
        examples: dict[int, list[int]] = {}
        if request.full and request.examples:  # which users: by their ids alone
            few = lists.orderBy(F.xxhash64("user")).limit(request.examples)
            examples = dict(few.select("user", F.slice("items", 1, _EXAMPLE)).collect())
        return RankingMetrics(rows, examples, unrankable)
    finally:
        lists.unpersist()


def _unrankable(model: Model, truth: DataFrame, lists: DataFrame) -> Unrankable:
    pairs = truth.select("user", "item").distinct()
    if "known" in lists.columns:
        sums = [F.coalesce(F.sum(count), F.lit(0)) for count in (F.size("greater"), F.col("known"), F.col("rankable"))]
        (n, (listed, known, rankable)) = pairs.count(), lists.agg(*sums).collect()[0]
        return Unrankable(n, n - listed, listed - known, known - rankable)
    for side, rows in (("user", lists), ("item", model.items)):
        pairs = pairs.join(rows.select(side, F.lit(True).alias(f"has_{side}")), side, "left")
    no_list, unknown = F.col("has_user").isNull(), F.col("has_item").isNull()
    n, strangers, others = pairs.agg(F.count("*"), F.count_if(no_list), F.count_if(~no_list & unknown)).collect()[0]
    return Unrankable(n, strangers, others, 0)


def _or_unranked(score: Column) -> Column:
    """Of an item that the model does not know."""
    return F.coalesce(score, F.lit(float("-inf")).cast("float"))


def _auc_shares(lists: DataFrame, targets: DataFrame) -> DataFrame:
    """(user, item, beaten): the share of the candidates of a user that each target scores above, ties half."""
    own = targets.groupBy("user").agg(F.array_sort(F.collect_list("item")).alias("item")).join(lists, "user")
    cells = own.where("candidates > 0").select(
        "user", "candidates", F.explode(F.arrays_zip("item", "greater", "equal")).alias("cell")
    )
    above = F.col("cell.greater") + F.col("cell.equal") / 2
    return cells.select("user", "cell.item", (1 - above / F.col("candidates")).alias("beaten"))


def _item_popularity(dataset: Dataset) -> DataFrame:
    """(item, popularity), of train users."""
    fitted = dataset.users.agg(F.greatest(F.count_if(F.col("train_count") > 0), F.lit(1)).alias("users"))
    share = F.least(F.greatest("train_count", F.lit(1)) / F.col("users"), F.lit(1.0))
    return dataset.items.crossJoin(fitted).select("item", share.alias("popularity"))


def _alone(truth: DataFrame) -> bool:
    """Whether every user has one held-out item."""
    return truth.groupBy("user").agg(F.count_distinct("item").alias("n")).where("n > 1").isEmpty()


def _candidates(dataset: Dataset, truth: DataFrame, protocol: GivenCandidates | SampledNegatives) -> DataFrame:
    """(user, item) to rank: the held-out items, and those to tell them from."""
    held_out = truth.select("user", "item")
    users = truth.select("user").distinct()
    if isinstance(protocol, GivenCandidates):
        assert dataset.candidates is not None
        return held_out.unionByName(dataset.candidates.select("user", "item").join(users, "user", "left_semi"))
    others = (dataset.train, dataset.validation, dataset.test) if protocol.exclude_seen else ()
    splits = [rows.select("user", "item") for rows in others]
    known = reduce(DataFrame.unionByName, splits, held_out).join(users, "user", "left_semi")
    known = known.groupBy("user").agg(F.array_sort(F.collect_set("item")).alias("known"))
    catalogue = pack(dataset.items.coalesce(1), "item", {}, max_rows=1 << 31, max_bytes=1 << 31)
    blocks = pack(known, "user", KNOWN, max_rows=max(1, _CELLS // protocol.negatives), max_bytes=32 << 20)
    task = SampleCandidates(protocol.seed, protocol.negatives)
    return held_out.unionByName(map_pairs(blocks, catalogue, task, broadcast="right"))
