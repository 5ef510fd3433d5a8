"""How good a model's rankings and ratings are: every metric at every cutoff, overall and by segment, in one pass.

Formulas are in `kernels.metrics`. What is averaged, and over whom:

- A user counts when it has a held-out item (in the segment). One for whom the model has no list counts as 0, in AUC as
  1/2: nothing is known of any pair. In explicit datasets every held-out row is relevant, whatever its rating.
- Segments: `all`; `users:1/3`, the third of users with fewest train interactions; `items:1/3`, the third of the
  catalogue with fewest, where the truth is restricted to those items and the ranking is the same. Equal counts stay
  together.
- A held-out item that the model does not know, or that the user has seen, cannot be ranked: a miss.
- auc: mean over a user's held-out items of the share of ranked items that score lower, ties half; other held-out items
  do not count. An item that the model does not know is below all.
- coverage@k: share of the catalogue that is in anyone's first k. novelty@k: mean over users with a list of the mean
  over its first k of -log2 of the share of train users that an item has (Zhou et al. 2010), one user where it has none.
- Under sampled negatives, where users have one held-out item each, corrected_* estimate full ranking.
- click_auc, grouped_click_auc, log_loss, calibration_error: over held-out rows, of which those with a value above 0 are
  clicks; see `kernels.metrics.clicks`.
- rmse, mae: over held-out rows, not users. A row without a prediction gets the mean of train;
  `unpredicted` counts them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec.config import FullRanking, GivenCandidates, Protocol, SampledNegatives
from sparkrec.errors import ConfigError, EvaluateError
from sparkrec.kernels.metrics.measures import CORRECTED
from sparkrec.kernels.sampling import sample_negatives
from sparkrec.spark.blocks import pack, unpack
from sparkrec.spark.clicks import METRICS as CLICK_METRICS
from sparkrec.spark.clicks import Clicks
from sparkrec.spark.dataset import Dataset
from sparkrec.spark.evaluation import METRICS, measured, user_values
from sparkrec.spark.model import Model
from sparkrec.spark.queries import asked, bind, check_codes, field_head, score_events
from sparkrec.spark.question import Question
from sparkrec.spark.retrieval import rank, score_lists, score_pairs
from sparkrec.spark.sequences import bind as bind_histories
from sparkrec.spark.sequences import histories, sees_histories

log = logging.getLogger(__name__)

_CORRECTED = ("hit_rate", "ndcg", "mrr")
"""What sampled negatives say of full ranking, at each cutoff."""
_EXAMPLE = 10
"""Items of a list that serves as an example."""
_CELLS = 4 << 20
"""Scores of candidates in one matrix."""


@dataclass(frozen=True)
class Metric:
    """One number."""

    metric: str
    k: int | None
    segment: str
    value: float
    standard_error: float | None
    """None: it is not known, or nothing is drawn."""
    low: float | None
    high: float | None
    """Ends of an interval of 95 %."""
    users: int
    """Users it is about."""

    @property
    def name(self) -> str:
        return self.metric if self.k is None else f"{self.metric}@{self.k}"


class Measured(NamedTuple):
    """What an evaluation has found."""

    metrics: list[Metric]
    calibration: pa.Table | None
    """Of clicks: `Clicks.calibration`."""
    examples: dict[int, list[int]]
    """Lists of a few users."""


def overall(metrics: Iterable[Metric]) -> dict[str, float]:
    """Metrics over all users, by name: {"ndcg@10": 0.43, ...}."""
    return {each.name: each.value for each in metrics if each.segment == "all"}


def measure(
    model: Model,
    dataset: Dataset,
    truth: DataFrame,
    seen: DataFrame | None,
    metric: str,
    clip: tuple[float, float] | None = None,
) -> float:
    """One metric under full ranking, by its name: `rmse`, `mae`, `auc`, or another with its cutoff as in `ndcg@10`."""
    name, _, cutoff = metric.partition("@")
    if metric in ("rmse", "mae"):
        found = metrics_of(model, dataset, truth, seen, None, [], ratings=True, clip=clip)
    elif metric in CLICK_METRICS or metric == "grouped_click_auc":
        found = metrics_of(model, dataset, truth, seen, None, [], clicks=True)
    elif metric == "auc":
        found = metrics_of(model, dataset, truth, seen, FullRanking(), [1])
    elif name in (*METRICS, "coverage", "novelty") and cutoff.isdecimal() and int(cutoff) > 0:
        found = metrics_of(model, dataset, truth, seen, FullRanking(), [int(cutoff)], auc=False)
    else:
        raise ConfigError(
            f"metric {metric!r} does not exist. Choose rmse, mae, auc, {', '.join(CLICK_METRICS)}, or one with a "
            f"cutoff, as ndcg@10, of {', '.join((*METRICS, 'coverage', 'novelty'))}."
        )
    return overall(found.metrics)[metric]


def metrics_of(
    model: Model,
    dataset: Dataset,
    truth: DataFrame,
    seen: DataFrame | None,
    protocol: Protocol | None,
    cutoffs: Sequence[int],
    *,
    metrics: Sequence[str] = METRICS,
    bootstrap: int = 0,
    users_to: str | None = None,
    examples: int = 0,
    segments: int = 1,
    auc: bool = True,
    ratings: bool = False,
    clip: tuple[float, float] | None = None,
    clicks: bool = False,
) -> Measured:
    """Measure rankings by a protocol (None: no rankings), and predicted ratings and clicks if asked. A model that sees
    the context ranks for each user in that of the first held-out row.

    truth     (user, item, value) held-out rows
    seen      (user, item, timestamp) what came before: histories, for models that see them, and what full ranking
              excludes; None: train came before, and nothing is excluded
    segments  number of groups of users, and of items; 1: `all` only
    examples  users whose lists are given back
    users_to  folder for what each user contributes: (user, a column for each metric, as `ndcg@10`)
    Raises EvaluateError when `truth` is empty, or the dataset has no candidates and the protocol needs them.
    """
    if isinstance(protocol, GivenCandidates) and dataset.candidates is None:
        raise EvaluateError(
            f"dataset {dataset.reference} came without candidates to rank. Use protocol full or sampled, or prepare it "
            "with split.candidates."
        )
    truth = _grouped(truth, dataset, segments).persist()
    scored = None
    try:
        if truth.isEmpty():
            raise EvaluateError(
                f"dataset {dataset.reference} has no row in that split to measure on. "
                "Prepare it with one, or choose another."
            )
        full = isinstance(protocol, FullRanking)
        predicted = None
        if field_head(model):
            check_codes(model, dataset)
            predicted = score_events(model, dataset, truth.drop("confidence"))
            if protocol is not None:
                model = bind(model, asked(dataset, truth))
        if sees_histories(model):
            model = bind_histories(model, _histories(dataset, seen).join(truth.select("user"), "user", "left_semi"))
        if (auc and full) or ((ratings or clicks) and predicted is None):
            scored = score_pairs(model, truth.select("user", "item").distinct()).persist()
        if predicted is None and scored is not None:
            predicted = truth.join(scored, ["user", "item"])
        found: list[Metric] = []
        lists: dict[int, list[int]] = {}
        calibration: pa.Table | None = None
        if protocol is not None:
            targets = scored if auc and full else None
            names = [*dict.fromkeys([*metrics, *(["auc"] if auc else [])])]
            found, lists = _ranking(
                model,
                dataset,
                truth,
                targets,
                seen,
                protocol,
                names,
                sorted(set(cutoffs)),
                segments,
                bootstrap,
                users_to,
                examples,
            )
        if ratings:
            assert predicted is not None
            found += _ratings(predicted, dataset, clip, segments)
        if clicks:
            assert predicted is not None
            judged = Clicks(predicted)
            calibration = judged.calibration()
            for segment, name, value, users in judged.metrics(segments):
                found.append(Metric(name, None, segment, value, None, None, None, users))
    finally:
        truth.unpersist()
        if scored is not None:
            scored.unpersist()
    return Measured(found, calibration, lists)


def _histories(dataset: Dataset, seen: DataFrame | None) -> DataFrame:
    settings = dataset.sequence_settings
    assert settings is not None
    return histories(dataset.train if seen is None else seen, settings)


# --- segments -----------------------------------------------------------------------------------------------------


def _grouped(truth: DataFrame, dataset: Dataset, segments: int) -> DataFrame:
    """The rows and the groups of their users and items, from 1; 0 when there is but one."""
    if segments == 1:
        return truth.withColumns({"user_group": F.lit(0), "item_group": F.lit(0)})
    users = truth.select("user").distinct().join(dataset.users.select("user", "train_count"), "user", "left")
    users = users.fillna(0, ["train_count"])
    counts = users.groupBy("train_count").count().withColumn("side", F.lit("user"))
    rows = counts.unionByName(dataset.items.groupBy("train_count").count().withColumn("side", F.lit("item"))).collect()

    def group(side: str) -> Column:
        bounds = _bounds([(row["train_count"], row["count"]) for row in rows if row["side"] == side], segments)
        place = sum(((F.col("train_count") > bound).cast("int") for bound in bounds), F.lit(1))
        return place.alias(f"{side}_group")

    truth = truth.join(users.select("user", group("user")), "user")
    return truth.join(dataset.items.select("item", group("item")), "item", "left").fillna(0, ["item_group"])


def _labels(segments: int, *sides: str) -> Column:
    """Segments of a row: `all`, and that of its user or item."""
    return F.array_compact(F.array(F.lit("all"), *(_label(segments, side) for side in sides)))


def _label(segments: int, side: str) -> Column:
    """The group of a row's user or item; null where there is but one."""
    named = F.concat(F.lit(f"{side}s:"), f"{side}_group", F.lit(f"/{segments}"))
    return F.when(F.col(f"{side}_group") > 0, named)


def _bounds(counts: list[tuple[int, int]], segments: int) -> list[int]:
    """The largest train count of each group but the last: a count goes where the middle of those who have it is."""
    total = sum(n for _, n in counts)
    bounds = [-1] * (segments - 1)
    before = 0
    for count, n in sorted(counts):
        group = int(segments * (before + n / 2) / total)
        bounds[group:] = [count] * len(bounds[group:])
        before += n
    return bounds


# --- rankings -----------------------------------------------------------------------------------------------------


def _ranking(
    model: Model,
    dataset: Dataset,
    truth: DataFrame,
    targets: DataFrame | None,
    seen: DataFrame | None,
    protocol: Protocol,
    metrics: list[str],
    cutoffs: list[int],
    segments: int,
    bootstrap: int,
    users_to: str | None,
    examples: int,
) -> tuple[list[Metric], dict[int, list[int]]]:
    items, sampled_from, full = _catalogue(dataset), None, isinstance(protocol, FullRanking)
    relevant = truth.select("user", "item", _label(segments, "item").alias("segment"))
    users = truth.select("user", _label(segments, "user").alias("segment")).distinct().where("segment IS NOT NULL")
    if isinstance(protocol, FullRanking):
        if targets is not None:
            below = F.lit(float("-inf")).cast("float")
            targets = targets.select("user", "item", F.coalesce("score", below).alias("score"))
        lists = rank(model, cutoffs[-1], truth.select("user").distinct(), exclude=seen, targets=targets).persist()
        if targets is not None:
            relevant = relevant.join(_beaten(lists, targets), ["user", "item"], "left").fillna(0.5, ["beaten"])
        recommendations = lists.select("user", F.col("items").alias("item"))
        metrics = [*dict.fromkeys([*metrics, "coverage", "novelty"])]
    else:
        scored = score_lists(model, _candidates(dataset, truth, protocol))
        lists = scored.select(
            "user", F.col("items").alias("item"), F.transform("scores", _or_unranked).alias("score")
        ).persist()
        recommendations = lists
        if isinstance(protocol, SampledNegatives) and _alone(truth):
            metrics = [*dict.fromkeys([*metrics, *(CORRECTED + name for name in _CORRECTED)])]
            sampled_from = dataset.items.count()
            if near := [k for k in cutoffs if 2 * k > protocol.negatives]:
                n, chance = protocol.negatives, min(near[-1] / (protocol.negatives + 1), 1.0)
                log.warning(
                    "cutoff %d of %d negatives: chance has a hit rate of %.2f; sample more", near[-1], n, chance
                )
    try:
        question = Question(
            recommendations, relevant, tuple(metrics), tuple(cutoffs), items=items, sampled_from=sampled_from
        )
        found = [Metric(*each[1:]) for each in measured(question, question.answer(users, bootstrap))]
        if users_to is not None:
            user_values(question).withColumnRenamed("n", "user").drop("by").write.mode("overwrite").parquet(users_to)
        shown: dict[int, list[int]] = {}
        if full and examples:  # which users: by their ids alone
            few = lists.orderBy(F.xxhash64("user")).limit(examples)
            shown = dict(few.select("user", F.slice("items", 1, _EXAMPLE)).collect())
        return found, shown
    finally:
        lists.unpersist()


def _or_unranked(score: Column) -> Column:
    """Of an item that the model does not know."""
    return F.coalesce(score, F.lit(float("-inf")).cast("float"))


def _beaten(lists: DataFrame, targets: DataFrame) -> DataFrame:
    """(user, item, beaten): the share of the candidates of a user that each target beats, ties half."""
    own = targets.groupBy("user").agg(F.array_sort(F.collect_list("item")).alias("item")).join(lists, "user")
    cells = own.where("candidates > 0").select(
        "user", "candidates", F.explode(F.arrays_zip("item", "greater", "equal")).alias("cell")
    )
    above = F.col("cell.greater") + F.col("cell.equal") / 2
    return cells.select("user", "cell.item", (1 - above / F.col("candidates")).alias("beaten"))


def _catalogue(dataset: Dataset) -> DataFrame:
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
    splits = [each.select("user", "item") for each in (dataset.train, dataset.validation, dataset.test)]
    known = reduce(DataFrame.unionByName, splits, held_out).join(users, "user", "left_semi")
    known = known.groupBy("user").agg(F.array_sort(F.collect_set("item")).alias("known"))
    catalogue = pack(dataset.items.coalesce(1), "item", {}, max_rows=1 << 31, max_bytes=1 << 31)
    n, seed = protocol.negatives, protocol.seed

    def sample(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for row in range(batch.num_rows):
                block = unpack(batch, row, "user", {"known": np.int64})
                items = unpack(batch, row, "item", {}).ids
                drawn = sample_negatives(seed, block.ids, block.arrays["known"].lists, items, n)
                there = drawn >= 0
                user = np.repeat(block.ids, there.sum(axis=1))
                yield pa.RecordBatch.from_pydict({"user": user, "item": drawn[there]})

    blocks = pack(known, "user", {"known": np.int64}, max_rows=max(1, _CELLS // n), max_bytes=32 << 20)
    negatives = blocks.crossJoin(F.broadcast(catalogue)).mapInArrow(sample, "user long, item long")
    return held_out.unionByName(negatives)


# --- ratings ------------------------------------------------------------------------------------------------------


def _ratings(rows: DataFrame, dataset: Dataset, clip: tuple[float, float] | None, segments: int) -> list[Metric]:
    """rmse, mae and unpredicted of `rows` (user, item, value, score, user_group, item_group) by segment."""
    mean = dataset.train.agg(F.avg("value").alias("mean"))
    predicted = F.coalesce(F.col("score").cast("double"), "mean")
    if clip is not None:
        predicted = F.least(F.greatest(predicted, F.lit(float(clip[0]))), F.lit(float(clip[1])))
    error = predicted - F.col("value")
    labels = F.explode(_labels(segments, "user", "item")).alias("segment")
    found = (
        rows.crossJoin(mean)
        .select("user", "score", error.alias("error"), labels)
        .groupBy("segment")
        .agg(
            F.sqrt(F.avg(F.col("error") ** 2)).alias("rmse"),
            F.avg(F.abs("error")).alias("mae"),
            F.count_if(F.col("score").isNull()).cast("double").alias("unpredicted"),
            F.count_distinct("user").alias("users"),
        )
        .orderBy("segment")
        .collect()
    )
    names = ("rmse", "mae", "unpredicted")
    return [
        Metric(name, None, row["segment"], row[name], None, None, None, row["users"]) for row in found for name in names
    ]
