"""Metrics of recommendations in any DataFrame, however they were made: one pass over rows in any order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import ArrayType, IntegralType, StructType
from scipy.stats import norm

from sparkrec.errors import EvaluateError
from sparkrec.kernels.arrays import F64
from sparkrec.kernels.metrics.accuracy import AT_CUTOFF, WHOLE
from sparkrec.kernels.metrics.statistics import holm, sign_test
from sparkrec.spark.buckets import buckets
from sparkrec.spark.judging import ALL, RECOMMENDED, RELEVANT, SEGMENT, TOTALS, Judge, Wanted
from sparkrec.spark.sources import require_columns

METRICS = ("ndcg", "recall", "hit_rate", "map", "mrr", "precision")
_CONFIDENCE = 0.95


def evaluate(
    recommendations: DataFrame,
    relevant: DataFrame,
    metrics: Sequence[str] = METRICS,
    k: Sequence[int] = (10,),
    segments: DataFrame | None = None,
    by: str | None = None,
    bootstrap: int = 0,
    seed: int = 0,
) -> DataFrame:
    """Accuracy of recommendations: (`by`, metric, k, segment, value, standard_error, low, high, users).

    recommendations  (user, item, rank), ranks from 1 without holes; or (user, item, score), whose ties are in an order
                     drawn by `seed`, so that equal scores are worth what chance is; or (user, item), items an array,
                     best first. Of rank and score, rank counts
    relevant         (user, item) and, for graded gains, relevance: rows of 0 or less are not relevant; of a pair that
                     comes twice the greater one counts
    metrics          names of `kernels.metrics.accuracy`
    segments         (user, segment), of which a user may have any number
    by               column of `recommendations` that tells runs apart, each of which is measured
    bootstrap        samples from which low and high are taken, between which the value is in 95 % of them; 0: they are
                     1.96 standard errors from it

    A user counts where it has relevant items, in every run, with an empty list where it has none. `value` is the mean
    over users. Ids may be of any type, the same on both sides. Raises EvaluateError for what is none of this.
    """
    wanted = _wanted(metrics, k)
    found = _totals(recommendations, relevant, segments, by, wanted, seed, bootstrap)
    rows = []
    for run in found.runs() or [None]:
        for segment in found.segments():
            for at, metric in enumerate(wanted):
                rows.append((run, *metric, segment, *found.mean("values", run, segment, at), found.users(segment)))
    name = by or "by"
    tidy = _tidy(
        recommendations.sparkSession,
        rows,
        f"`{name}` string, metric string, k int, segment string, value double, standard_error double, low double, "
        "high double, users long",
    )
    return tidy if by else tidy.drop(name)


def compare(
    recommendations: DataFrame,
    relevant: DataFrame,
    by: str,
    baseline: str,
    metrics: Sequence[str] = METRICS,
    k: Sequence[int] = (10,),
    segments: DataFrame | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> DataFrame:
    """How much better runs are than one of them, user by user: (`by`, metric, k, segment, difference, standard_error,
    low, high, p_value, adjusted_p, better, worse, sign_p, users).

    by, baseline  column of `recommendations` that tells runs apart, and the one that all others are compared with

    All else as in `evaluate`. `difference` is the mean over users of run less baseline; p_value is twice the share of
    bootstrap samples in which it has the other sign, at least 1 / samples (without samples: of a normal distribution
    with that standard error); better and worse are numbers of users, and sign_p the p-value of a sign test on these.
    adjusted_p is p_value corrected for all metrics, cutoffs and runs of the segment (Holm 1979).
    """
    wanted = _wanted(metrics, k)
    require_columns(recommendations, [by], "recommendations")
    runs = sorted(row[0] for row in recommendations.select(F.col(by).cast("string")).distinct().collect() if row[0])
    if baseline not in runs or len(runs) < 2:
        raise EvaluateError(
            f"baseline: found {baseline!r}, expected one of several runs in column {by}, which has {', '.join(runs)}"
        )
    others = tuple(run for run in runs if run != baseline)
    found = _totals(recommendations, relevant, segments, by, wanted, seed, bootstrap, baseline, others)
    rows = []
    for segment in found.segments():
        of_segment = []
        for run in others:
            for at, metric in enumerate(wanted):
                mean = found.mean("difference", run, segment, at)
                better, worse = found.signs(run, segment, at)
                p = found.p_value(run, segment, at)
                of_segment.append([run, *metric, segment, *mean, p, None, better, worse, sign_test(better, worse)])
        for row, adjusted in zip(of_segment, holm(np.array([row[8] for row in of_segment])), strict=True):
            row[9] = float(adjusted)
            rows.append((*row, found.users(segment)))
    return _tidy(
        recommendations.sparkSession,
        rows,
        f"`{by}` string, metric string, k int, segment string, difference double, standard_error double, low double, "
        "high double, p_value double, adjusted_p double, better long, worse long, sign_p double, users long",
    )


def _tidy(spark: SparkSession, rows: list[tuple[Any, ...]], columns: str) -> DataFrame:
    """Through Arrow: rows of Python objects take a job of their own."""
    schema = to_arrow_schema(cast(StructType, StructType.fromDDL(columns)))
    arrays = [pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), schema.types, strict=True)]
    return spark.createDataFrame(pa.Table.from_arrays(arrays, schema=schema))


def _wanted(metrics: Sequence[str], k: Sequence[int]) -> tuple[Wanted, ...]:
    known = {**AT_CUTOFF, **WHOLE}
    if unknown := [name for name in metrics if name not in known]:
        raise EvaluateError(f"metrics: found {', '.join(map(repr, unknown))}, expected any of {', '.join(known)}")
    if wrong := [each for each in k if isinstance(each, bool) or not isinstance(each, int) or each < 1]:
        raise EvaluateError(f"k: found {wrong[0]!r}, expected whole numbers from 1")
    wanted = [Wanted(name, each) for name in metrics if name in AT_CUTOFF for each in sorted(set(k))]
    wanted += [Wanted(name, None) for name in metrics if name in WHOLE]
    if not wanted:
        raise EvaluateError("nothing to measure: found no metric with a cutoff in `metrics` and `k`")
    return tuple(wanted)


def _check(recommendations: DataFrame, relevant: DataFrame, segments: DataFrame | None, by: str | None) -> None:
    require_columns(recommendations, ["user", "item", *([by] if by else [])], "recommendations")
    require_columns(relevant, ["user", "item"], "relevant")
    item = recommendations.schema["item"].dataType
    if not isinstance(item, ArrayType) and not {"rank", "score"}.intersection(recommendations.columns):
        raise EvaluateError(
            "recommendations: found neither rank nor score, and no array of items: expected an order of each list"
        )
    sides = [("relevant", relevant, "user"), ("relevant", relevant, "item")]
    if segments is not None:
        require_columns(segments, ["user", "segment"], "segments")
        sides.append(("segments", segments, "user"))
    for title, frame, name in sides:
        here, there = recommendations.schema[name].dataType, frame.schema[name].dataType
        here = here.elementType if isinstance(here, ArrayType) else here
        if here != there and not (isinstance(here, IntegralType) and isinstance(there, IntegralType)):
            raise EvaluateError(
                f"{name}: found {here.simpleString()} in recommendations and {there.simpleString()} in {title}; "
                "expected one type. Cast one of them."
            )


def _totals(
    recommendations: DataFrame,
    relevant: DataFrame,
    segments: DataFrame | None,
    by: str | None,
    wanted: tuple[Wanted, ...],
    seed: int,
    replicates: int,
    baseline: str | None = None,
    runs: tuple[str, ...] = (),
) -> _Found:
    """The one pass. Raises EvaluateError for what was wrong in it."""
    _check(recommendations, relevant, segments, by)
    if isinstance(replicates, bool) or not isinstance(replicates, int) or replicates < 0:
        raise EvaluateError(f"bootstrap: found {replicates!r}, expected a number of samples, or 0")
    lists = isinstance(recommendations.schema["item"].dataType, ArrayType)
    order = "list" if lists else "rank" if "rank" in recommendations.columns else "score"
    label = F.col(by).cast("string") if by else None
    rows = buckets(recommendations, RECOMMENDED, label, None if lists else F.col(order))
    gain = F.col("relevance") if "relevance" in relevant.columns else None
    rows = rows.unionAll(buckets(relevant, RELEVANT, None, gain))
    if segments is not None:
        about = segments.withColumn("item", F.lit(0))
        rows = rows.unionAll(buckets(about, SEGMENT, F.col("segment").cast("string"), None))
    judge = Judge(wanted, order, seed, replicates, baseline, runs)
    whole = rows.repartition("bucket").sortWithinPartitions("bucket")
    found = _Found(whole.mapInArrow(judge, TOTALS).collect(), replicates)
    for kind, message in _PROBLEMS.items():
        if n := found.problem(kind):
            raise EvaluateError(message.format(n=n))
    if not found.users(ALL):
        raise EvaluateError("relevant: found no user with a relevant item, expected some to measure on")
    return found


class _Found:
    """The totals of all tasks."""

    def __init__(self, rows: list[Any], replicates: int) -> None:
        self.rows, self.replicates = rows, replicates
        self.sums: dict[tuple[str, str, str | None, str], F64] = {}
        self.parts: dict[tuple[str, str | None, str], list[Any]] = {}
        for row in rows:
            self.parts.setdefault((row["kind"], row["label"], row["segment"]), []).append(row)

    def problem(self, kind: str) -> int:
        return sum(row["n"] for row in self.rows if row["kind"] == kind)

    def runs(self) -> list[str | None]:
        return sorted({run for kind, run, _ in self.parts if kind == "values"}, key=lambda run: run or "")

    def segments(self) -> list[str]:
        """Those with users, that of everyone first."""
        there = {segment for kind, _, segment in self.parts if kind == "users" and self.users(segment)}
        return sorted(there, key=lambda segment: (segment != ALL, segment))

    def users(self, segment: str) -> int:
        return sum(row["n"] for row in self.parts.get(("users", None, segment), []))

    def signs(self, run: str, segment: str, at: int) -> tuple[int, int]:
        """Users whose difference is above and below 0."""
        of = "difference", run, segment
        return int(self._sum("above", *of)[at]), int(self._sum("below", *of)[at])

    def mean(self, kind: str, run: str | None, segment: str, at: int) -> tuple[float, float, float, float]:
        """Over all users of the segment, its standard error, and the ends of an interval around it."""
        n = self.users(segment)
        sums, squares = (self._sum(name, kind, run, segment) for name in ("sums", "squares"))
        if not len(sums):
            return 0.0, 0.0, 0.0, 0.0  # nobody has a list
        mean = sums[at] / n
        error = math.sqrt(max(squares[at] / n - mean**2, 0.0) / (n - 1)) if n > 1 else math.nan
        if self.replicates:
            low, high = np.quantile(
                self._resampled(kind, run, segment)[:, at], [0.5 - _CONFIDENCE / 2, 0.5 + _CONFIDENCE / 2]
            )
        else:
            reach = float(norm.ppf(0.5 + _CONFIDENCE / 2)) * error
            low, high = mean - reach, mean + reach
        return float(mean), error, float(low), float(high)

    def p_value(self, run: str, segment: str, at: int) -> float:
        """Of a difference of 0, two-sided."""
        mean, error, _, _ = self.mean("difference", run, segment, at)
        if self.replicates:
            means = self._resampled("difference", run, segment)[:, at]
            other = min((means <= 0).mean(), (means >= 0).mean())
            return float(min(max(2.0 * other, 1.0 / self.replicates), 1.0))
        return float(2.0 * norm.sf(abs(mean) / error)) if error else 1.0 if mean == 0 else math.nan

    def _resampled(self, kind: str, run: str | None, segment: str) -> F64:
        """(b, m) means in each sample."""
        users = self._sum("resampled", "users", None, segment)[:, None]
        sums = self._sum("resampled", kind, run, segment).reshape(self.replicates, -1)
        return np.divide(sums, users, out=np.zeros(sums.shape), where=users > 0)

    def _sum(self, name: str, kind: str, run: str | None, segment: str) -> F64:
        """Exact, so that the order of the tasks is nothing."""
        key = name, kind, run, segment
        if key not in self.sums:
            own = [row[name] for row in self.parts.get((kind, run, segment), [])]
            self.sums[key] = np.array([math.fsum(column) for column in zip(*own, strict=True)])
        return self.sums[key]


_PROBLEMS = {
    "nobody": "found {n:,} rows whose user or item is null, expected none. Drop those rows.",
    "everyone": "segments: found {n:,} users in a segment named all, which is that of everyone. Name it otherwise.",
    "nan": "recommendations: found {n:,} scores that are null or NaN, expected numbers. Drop those rows, or mend the "
    "model.",
    "ranks": "recommendations: found {n:,} ranks that are not 1, 2, 3, ... of their user, expected one of each. Number "
    "them anew, or pass scores instead.",
    "repeats": "recommendations: found an item more than once in the list of a user, expected each once: it would "
    "count twice. Drop duplicates.",
    "relevance": "relevant: found {n:,} rows whose relevance is null, NaN or infinite, expected a finite number.",
}
