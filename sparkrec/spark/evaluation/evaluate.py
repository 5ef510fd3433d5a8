"""Metrics of recommendations in any DataFrame, however they were made: one pass over rows in any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.errors import EvaluateError
from sparkrec.kernels.arrays import I64
from sparkrec.kernels.metrics import counts
from sparkrec.kernels.metrics.statistics import holm, sign_test
from sparkrec.spark.evaluation.bucketing import encoded_ids
from sparkrec.spark.evaluation.collect import result_frame
from sparkrec.spark.evaluation.partial_metrics import ALL, MetricSpec
from sparkrec.spark.evaluation.request import OF_ITEMS, EvaluationRequest
from sparkrec.spark.evaluation.totals import MetricTotals
from sparkrec.spark.platform.failures import mendable
from sparkrec.spark.platform.sources import quoted, resolved

METRICS = ("ndcg", "recall", "hit_rate", "map", "mrr", "precision")


@mendable()
def evaluate(
    recommendations: DataFrame,
    relevant: DataFrame,
    metrics: Sequence[str] = METRICS,
    k: Sequence[int] = (10,),
    segments: DataFrame | None = None,
    by: str | None = None,
    before: DataFrame | None = None,
    items: DataFrame | None = None,
    sampled_from: int | None = None,
    bootstrap: int = 0,
    seed: int = 0,
    user: str = "user",
    item: str = "item",
) -> DataFrame:
    """How good recommendations are: (`by`, metric, k, segment, value, standard_error, low, high, users).

    recommendations  (user, item, rank), ranks from 1 without holes; or (user, item, score), whose ties are in an order
                     drawn by `seed`, so that equal scores are worth what chance is, and -inf is no recommendation; or
                     (user, item), items an array, best first; or (user, item, score), both arrays. Of rank and score,
                     rank counts
    relevant         (user, item) and, for graded gains and ratings, relevance: rows of 0 or less are not relevant; of a
                     pair that comes twice the greater one counts. With `segment`: of the item, which is measured apart,
                     too. With `beaten`: the share of irrelevant candidates that the item beats, where auc is to be of
                     more than the lists hold
    metrics          by name; docs/metrics.md has them all
    segments         (user, segment), of which a user may have any number
    by               column of `recommendations` that tells runs apart, each of which is measured
    before           (user, item) that came before, for what has to do with popularity and with the taste of a user
    items            (item) of the catalogue, with `vector` for diversity, `categories` for category_diversity and
                     miscalibration, both arrays, and `popularity`, a share of users, instead of what `before` says of
                     it; None: the items of `before`
    sampled_from     number of items that the candidates in `recommendations` were sampled from, for corrected metrics
    bootstrap        samples from which low and high are taken, between which the value is in 95 % of them; 0: they are
                     1.96 standard errors from it
    user, item       what the columns of ids are called, in all tables

    A user counts where it has relevant items, in every run, with an empty list where it has none. `value` is the mean
    over users, unless the metric says otherwise. Ids may be of any type, the same on both sides. Raises EvaluateError
    for what is none of this.
    """
    recommendations, relevant = (_renamed(frame, user, item) for frame in (recommendations, relevant))
    segments, before, items = (frame and _renamed(frame, user, item) for frame in (segments, before, items))
    request = EvaluationRequest(
        recommendations, relevant, tuple(metrics), tuple(k), by, before, items, sampled_from, seed
    )
    rows = metric_rows(request, request.totals(segments, bootstrap))
    columns = "metric string, k int, segment string, value double, standard_error double, low double, high double"
    table = result_frame(recommendations.sparkSession, rows, f"{quoted(by or 'by')} string, {columns}, users long")
    return table if by else table.drop("by")


def metric_rows(request: EvaluationRequest, totals: MetricTotals) -> list[tuple[Any, ...]]:
    """Rows (run, metric, k, segment, value, standard error, low, high, users) in order of the request's metrics."""
    rows: list[tuple[Any, ...]] = []
    for run in request.runs:
        for segment in totals.segments(ALL):
            for number, metric in enumerate(request.user_metrics):
                if users := totals.users("values", run, segment, number):
                    rows.append((run, *metric, segment, *totals.estimate("values", run, segment, number), users))
            for metric in request.list_metrics:
                n, lists = totals.item_counts(run, segment, metric.k or 0)
                if lists:
                    value = _list_metric(metric, n, lists, len(request.item_facts.ids))
                    rows.append((run, *metric, segment, value, None, None, None, lists))
    place = {metric: at for at, metric in enumerate(request.metrics)}
    rows.sort(key=lambda row: (row[0] or "", row[3] != ALL, row[3], place[row[1]], row[2] or 0))
    return rows


@mendable()
def compare(
    recommendations: DataFrame,
    relevant: DataFrame,
    by: str,
    baseline: str,
    metrics: Sequence[str] = METRICS,
    k: Sequence[int] = (10,),
    segments: DataFrame | None = None,
    before: DataFrame | None = None,
    items: DataFrame | None = None,
    sampled_from: int | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    user: str = "user",
    item: str = "item",
) -> DataFrame:
    """How much better runs are than one of them, user by user: (`by`, metric, k, segment, difference, standard_error,
    low, high, p_value, adjusted_p, better, worse, sign_p, users).

    by, baseline  column of `recommendations` that tells runs apart, and the one that all others are compared with

    All else as in `evaluate`. `difference` is the mean over users of run less baseline; p_value is twice the share of
    bootstrap samples in which it has the other sign, at least 1 / samples (without samples: of a normal distribution
    with that standard error); better and worse are numbers of users, and sign_p the p-value of a sign test on these.
    adjusted_p is p_value corrected for all metrics, cutoffs and runs of the segment (Holm 1979).
    """
    if of_all := [name for name in metrics if name in (*OF_ITEMS, "rmse")]:
        raise EvaluateError(
            f"metrics: found {', '.join(of_all)}, which no user has a value of, expected others (mae for rmse)"
        )
    recommendations, relevant = (_renamed(frame, user, item) for frame in (recommendations, relevant))
    segments, before, items = (frame and _renamed(frame, user, item) for frame in (segments, before, items))
    request = EvaluationRequest(
        recommendations, relevant, tuple(metrics), tuple(k), by, before, items, sampled_from, seed
    )
    names = [run for run in request.runs if run is not None]
    if baseline not in names or len(names) < 2:
        raise EvaluateError(
            f"baseline: found {baseline!r}, expected one of several runs in column {by}, which has {', '.join(names)}"
        )
    totals = request.totals(segments, bootstrap, baseline)
    rows = []
    for segment in totals.segments(ALL):
        of_segment = []
        for run in (name for name in names if name != baseline):
            for number, metric in enumerate(request.user_metrics):
                if users := totals.users("difference", run, segment, number):
                    mean = totals.estimate("difference", run, segment, number)
                    better, worse = totals.signs(run, segment, number)
                    p = totals.p_value(run, segment, number)
                    sign_p = sign_test(better, worse)
                    of_segment.append([run, *metric, segment, *mean, p, None, better, worse, sign_p, users])
        for row, adjusted in zip(of_segment, holm(np.array([row[8] for row in of_segment])), strict=True):
            row[9] = float(adjusted)
            rows.append(tuple(row))
    return result_frame(
        recommendations.sparkSession,
        rows,
        f"{quoted(by)} string, metric string, k int, segment string, difference double, "
        "standard_error double, low double, high double, p_value double, adjusted_p double, better long, worse long, "
        "sign_p double, users long",
    )


def user_metrics(
    recommendations: DataFrame,
    relevant: DataFrame,
    metrics: Sequence[str] = METRICS,
    k: Sequence[int] = (10,),
    by: str | None = None,
    before: DataFrame | None = None,
    items: DataFrame | None = None,
    sampled_from: int | None = None,
    seed: int = 0,
    user: str = "user",
    item: str = "item",
) -> DataFrame:
    """What each user contributes: (`user`, `by`, a column for each metric, as `ndcg@10`), null where it is not defined.

    All else as in `evaluate`. The table is made when it is read; what is wrong with the rows is raised by Spark then.
    """
    if of_all := [name for name in metrics if name in OF_ITEMS]:
        raise EvaluateError(f"metrics: found {', '.join(of_all)}, which no user has a value of, expected others")
    recommendations, relevant = (_renamed(frame, user, item) for frame in (recommendations, relevant))
    before, items = (frame and _renamed(frame, user, item) for frame in (before, items))
    request = EvaluationRequest(
        recommendations, relevant, tuple(metrics), tuple(k), by, before, items, sampled_from, seed
    )
    ids = relevant.select(F.col("user").alias("id"), encoded_ids(relevant, "user").alias("user")).distinct()
    run = [F.col("run").alias(by)] if by else []
    names = [f"`{metric.title}`" for metric in request.user_metrics]
    return ids.join(request.values(), "user").select(F.col("id").alias(user), *run, *names)


def _renamed(frame: DataFrame, user: str, item: str) -> DataFrame:
    """The columns of ids as `user` and `item`; what else is called so is left out."""
    for name, own in ((user, "user"), (item, "item")):
        frame = resolved(frame, [], "a table", [name])
        if name != own and name in frame.columns:
            frame = frame.drop(own).withColumnRenamed(name, own)
    return frame


def _list_metric(metric: MetricSpec, n: I64, lists: int, size: int) -> float:
    """n: how often each item is in a list, of those that are in any."""
    if metric.name == "personalisation":
        return counts.personalisation(n, lists, metric.k or 0)
    return counts.entropy(n) if metric.name == "entropy" else _OF_CATALOGUE[metric.name](n, size)


_OF_CATALOGUE = {"coverage": counts.coverage, "gini": counts.gini}
