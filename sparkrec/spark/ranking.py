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
- coverage@k: share of the catalogue that is in anyone's first k. novelty@k: mean over all those lists of -log2 of the
  share of train users that an item has (Zhou et al. 2010), one user where it has none. Both under full ranking only.
- click_auc, grouped_click_auc, log_loss, calibration_error: over held-out rows, of which those with a value above 0 are
  clicks; see `kernels.metrics.clicks`.
- rmse, mae: over held-out rows, not users. A row without a prediction gets the mean of train;
  `unpredicted` counts them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec.config import FullRanking, GivenCandidates, Protocol, SampledNegatives
from sparkrec.errors import ConfigError, EvaluateError
from sparkrec.kernels.arrays import F64, I64
from sparkrec.kernels.metrics.accuracy import accuracy
from sparkrec.kernels.metrics.hits import find_hits
from sparkrec.kernels.sampling import sample_negatives
from sparkrec.kernels.topk import count_above, select_topk
from sparkrec.spark.blocks import Ragged, pack, read_lists, unpack
from sparkrec.spark.clicks import METRICS as CLICK_METRICS
from sparkrec.spark.clicks import Clicks
from sparkrec.spark.dataset import Dataset
from sparkrec.spark.model import Model
from sparkrec.spark.queries import asked, bind, check_codes, field_head, score_events
from sparkrec.spark.retrieval import rank, score_lists, score_pairs
from sparkrec.spark.sequences import bind as bind_histories
from sparkrec.spark.sequences import histories, sees_histories

METRICS = ("hit_rate", "recall", "precision", "ndcg", "map", "mrr")
"""Of lists, at each cutoff."""
_CELLS = 4 << 20
"""Scores of candidates in one matrix."""


@dataclass(frozen=True)
class Metric:
    """One number."""

    segment: str
    metric: str
    k: int | None
    value: float
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
        calibration: pa.Table | None = None
        if protocol is not None:
            targets = scored if auc and full else None
            found += _ranking(model, dataset, truth, targets, seen, protocol, sorted(set(cutoffs)), segments, auc)
        if ratings:
            assert predicted is not None
            found += _ratings(predicted, dataset, clip, segments)
        if clicks:
            assert predicted is not None
            judged = Clicks(predicted)
            calibration = judged.calibration()
            for segment, name, value, users in judged.metrics(segments):
                found.append(Metric(segment, name, None, value, users))
    finally:
        truth.unpersist()
        if scored is not None:
            scored.unpersist()
    return Measured(found, calibration)


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
    named = [
        F.when(F.col(f"{side}_group") > 0, F.concat(F.lit(f"{side}s:"), f"{side}_group", F.lit(f"/{segments}")))
        for side in sides
    ]
    return F.array_compact(F.array(F.lit("all"), *named))


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
    cutoffs: list[int],
    segments: int,
    auc: bool,
) -> list[Metric]:
    cell = F.struct("item", "item_group")
    users = (
        truth.groupBy("user", "user_group")
        .agg(F.array_sort(F.collect_set(cell)).alias("target"))
        .select(
            "user", "user_group", F.col("target.item").alias("target"), F.col("target.item_group").alias("target_group")
        )
    )
    full = isinstance(protocol, FullRanking)
    if isinstance(protocol, FullRanking):
        if targets is not None:
            below = F.lit(float("-inf")).cast("float")
            targets = targets.select("user", "item", F.coalesce("score", below).alias("score"))
        lists = rank(model, cutoffs[-1], truth.select("user"), exclude=seen, targets=targets)
    else:
        lists = score_lists(model, _candidates(dataset, truth, protocol))
    judged = users.join(lists, "user", "left").persist()

    def judge(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield from _judge(batch, full, cutoffs, segments, auc)

    sums: dict[str, tuple[int, list[NDArray[np.float64]]]] = {}
    try:
        for row in judged.mapInArrow(judge, "segment string, users long, sums array<double>").collect():
            n, values = sums.setdefault(row["segment"], (0, []))
            sums[row["segment"]] = n + row["users"], [*values, np.array(row["sums"])]
        spread = _spread(judged, dataset, cutoffs, segments) if full else {}
    finally:
        judged.unpersist()
    found = []
    for segment, (n, parts) in sorted(sums.items()):
        means = [math.fsum(column) / n for column in zip(*parts, strict=True)]
        named = [(name, k) for name in METRICS for k in cutoffs] + ([("auc", None)] if auc else [])
        found += [Metric(segment, name, k, value, n) for (name, k), value in zip(named, means, strict=True)]
        found += [Metric(segment, name, k, value, n) for (name, k), value in spread.get(segment, {}).items()]
    return found


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


def _judge(batch: pa.RecordBatch, full: bool, cutoffs: list[int], segments: int, auc: bool) -> Iterator[pa.RecordBatch]:
    """Sums of every metric over the users of a batch, by segment."""
    lists = {name: read_lists(batch.column(name), np.int64) for name in ("target", "items")}
    target = lists["target"]
    if full:
        ranked = lists["items"]
        greater, equal = (read_lists(batch.column(name), np.int64) for name in ("greater", "equal"))
        negatives = batch.column("candidates").fill_null(0).to_numpy()
        shares = _beaten(target, negatives, greater, equal) if auc else None
    else:
        scores = batch.column("scores")
        start = scores.offsets.to_numpy()
        flat = scores.values.slice(start[0], start[-1] - start[0]).fill_null(-np.inf).to_numpy()
        ranked, shares = _rank_candidates(lists["items"], flat, target, cutoffs[-1])
        shares = shares if auc else None

    groups = batch.column("user_group").to_numpy()
    target_groups = read_lists(batch.column("target_group"), np.int32).values
    chosen = [("all", np.ones(len(target.values), np.bool_))]
    if segments > 1:
        for group in range(1, segments + 1):
            chosen.append((f"users:{group}/{segments}", np.repeat(groups == group, target.lengths)))
            chosen.append((f"items:{group}/{segments}", target_groups == group))
    for segment, mask in chosen:
        relevant = target.keep(mask, target.values)
        counted = relevant.lengths > 0
        if not counted.any():
            continue
        hits = find_hits(ranked.take(np.flatnonzero(counted)).lists, _rows(relevant, counted).lists)
        columns = [accuracy(hits, name, k) for name in METRICS for k in cutoffs]
        if shares is not None:
            sums = np.bincount(target.rows[mask], shares[mask], minlength=len(counted))
            columns.append(sums[counted] / relevant.lengths[counted])
        total = [math.fsum(column) for column in columns]
        yield pa.RecordBatch.from_pydict(
            {"segment": [segment], "users": pa.array([int(counted.sum())], pa.int64()), "sums": [total]}
        )


def _rows(lists: Ragged, mask: NDArray[np.bool_]) -> Ragged:
    """Rows of a mask, given that the others are empty."""
    return Ragged.of_lengths(lists.lengths[mask], lists.values)


def _beaten(target: Ragged, negatives: I64, greater: Ragged, equal: Ragged) -> F64:
    """For each target the share of the user's negatives that it beats, ties half; 1/2 where there is none."""
    shares = np.full(len(target.values), 0.5)
    known = np.repeat((greater.lengths > 0) & (negatives > 0), target.lengths)
    n = np.repeat(negatives, target.lengths)[known]
    # Users without a list have no counts: what is left follows the targets of those who have.
    counted = np.repeat(negatives > 0, greater.lengths)
    shares[known] = 1 - (greater.values[counted] + equal.values[counted] / 2) / n
    return shares


def _rank_candidates(lists: Ragged, scores: NDArray[np.float32], target: Ragged, k: int) -> tuple[Ragged, F64]:
    """The k best candidates of each user, and for each target the share of the other candidates that it beats.

    lists   candidates of each user, ascending, its targets among them unless it has none at all
    scores  of the candidates, -inf where there is none
    """
    n_users = len(lists.start) - 1
    ranked, shares = np.full((n_users, k), -1, np.int64), np.full(len(target.values), 0.5)
    longest = int(lists.lengths.max(initial=1))
    step = max(1, _CELLS // max(longest, 1))
    for first in range(0, n_users, step):
        stop = min(first + step, n_users)
        part, wanted = lists.between(first, stop), target.between(first, stop)
        place = np.arange(len(part.values)) - np.repeat(part.start[:-1], part.lengths)
        matrix = np.full((stop - first, max(longest, 1)), -np.inf, np.float32)
        matrix[part.rows, place] = scores[lists.start[first] : lists.start[stop]]

        best, _ = select_topk(matrix, k)
        at = part.start[:-1, None] + best
        there = best >= 0
        ranked[first:stop][there] = part.values[at[there]]

        # Places of the targets in their lists; users without a list have none.
        rows = np.repeat(part.lengths > 0, wanted.lengths)
        ids = np.unique(part.values)
        keys = part.rows * len(ids) + np.searchsorted(ids, part.values)
        found = np.searchsorted(keys, wanted.rows[rows] * len(ids) + np.searchsorted(ids, wanted.values[rows]))
        places = Ragged.of_lengths(np.where(part.lengths > 0, wanted.lengths, 0), place[found].astype(np.int32))
        target_scores = matrix[places.rows, places.values]
        rated = (matrix > -np.inf).sum(axis=1)
        negatives = rated - np.bincount(places.rows, target_scores > -np.inf, minlength=stop - first).astype(np.int64)
        greater, equal = count_above(matrix, places.start, target_scores, *places.lists)
        equal = np.minimum(equal, np.repeat(negatives, places.lengths) - greater)  # without the padding
        shares[target.start[first] : target.start[stop]] = _beaten(
            wanted, negatives, Ragged(places.start, greater), Ragged(places.start, equal)
        )
    return Ragged.of_lengths((ranked >= 0).sum(axis=1), ranked[ranked >= 0]), shares


def _spread(
    judged: DataFrame, dataset: Dataset, cutoffs: list[int], segments: int
) -> dict[str, dict[tuple[str, int], float]]:
    """Coverage and novelty at every cutoff by segment of users."""
    places = judged.select(F.explode(_labels(segments, "user")).alias("segment"), "items").select(
        "segment", F.posexplode("items").alias("place", "item")
    )
    within = {k: F.col("place") < k for k in cutoffs}
    items = places.groupBy("segment", "item").agg(*[F.count_if(within[k]).alias(f"n{k}") for k in cutoffs])
    fitted = dataset.users.agg(F.greatest(F.count_if(F.col("train_count") > 0), F.lit(1)).alias("users"))
    catalogue = dataset.items.agg(F.count("*").alias("catalogue"))
    share = F.least(F.greatest("train_count", F.lit(1)) / F.col("users"), F.lit(1.0))
    known = items.join(dataset.items.select("item", "train_count"), "item").crossJoin(fitted).crossJoin(catalogue)
    found = known.groupBy("segment").agg(
        *[F.count_if(F.col(f"n{k}") > 0) / F.first("catalogue") for k in cutoffs],
        *[F.sum(-F.log2(share) * F.col(f"n{k}")) / F.sum(f"n{k}") for k in cutoffs],
    )
    named = [("coverage", k) for k in cutoffs] + [("novelty", k) for k in cutoffs]
    return {row[0]: dict(zip(named, row[1:], strict=True)) for row in found.collect()}


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
    return [Metric(row["segment"], name, None, row[name], row["users"]) for row in found for name in names]
