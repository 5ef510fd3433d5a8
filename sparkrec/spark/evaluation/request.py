"""What to measure of which tables of recommendations: checked, and put into buckets that tasks can read."""

from __future__ import annotations

from collections.abc import Sequence, Set
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql.types import ArrayType, IntegralType

from sparkrec.errors import EvaluateError
from sparkrec.kernels.metrics.accuracy import AT_CUTOFF, WHOLE
from sparkrec.kernels.metrics.measures import CORRECTED, LIFT, OF_LISTS, OF_SCORES, ItemFacts
from sparkrec.spark.evaluation.bucketing import for_buckets
from sparkrec.spark.evaluation.buckets import FillBuckets
from sparkrec.spark.evaluation.item_facts import item_facts
from sparkrec.spark.evaluation.partial_metrics import (
    ALL,
    BEFORE,
    PROBLEMS,
    RECOMMENDED,
    RELEVANT,
    SEGMENT,
    MetricAggregator,
    MetricSpec,
    PartialMetrics,
    UserMetrics,
)
from sparkrec.spark.evaluation.totals import KEY, AddItemCounts, MetricTotals
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.platform.session import small_rows
from sparkrec.spark.platform.sources import column, resolved
from sparkrec.spark.runner import Rows

OF_ITEMS = ("coverage", "entropy", "gini", "personalisation")
"""At a cutoff: what all lists together are like."""
_OF_POPULARITY = ("novelty", "popularity", "serendipity")
_OF_BEFORE = ("miscalibration", LIFT)
_OF_RATINGS = ("log_loss", "rmse", "mae")
_AT_CUTOFF = (*AT_CUTOFF, *(CORRECTED + name for name in AT_CUTOFF), *OF_LISTS, LIFT, *OF_ITEMS)
_WHOLE = (*WHOLE, *OF_SCORES)
_OURS = frozenset(
    (
        *(
            "user",
            "item",
            "rank",
            "score",
            "n",
            "metric",
            "k",
            "segment",
            "value",
            "standard_error",
            "low",
            "high",
            "users",
        ),
        *("difference", "p_value", "adjusted_p", "better", "worse", "sign_p"),
    )
)
"""Columns of recommendations, and of what `evaluate`, `compare` and `user_metrics` return."""


@dataclass(frozen=True)
class EvaluationRequest:
    """Arguments as of `evaluation.evaluate`. Raises EvaluateError for what cannot be measured."""

    recommendations: DataFrame
    relevant: DataFrame
    metrics: tuple[str, ...]
    k: tuple[int, ...]
    by: str | None = None
    before: DataFrame | None = None
    items: DataFrame | None = None
    sampled_from: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_names(self.metrics)
        if wrong := [k for k in self.k if isinstance(k, bool) or not isinstance(k, int) or k < 1]:
            raise EvaluateError(f"k: found {wrong[0]!r}, expected whole numbers from 1")
        if not self.user_metrics and not self.list_metrics:
            raise EvaluateError("nothing to measure: found no metric with a cutoff in `metrics` and `k`")
        by = [self.by] if self.by else []
        if self.by is not None and self.by.lower() in {*_OURS, *(metric.title for metric in self.user_metrics)}:
            raise EvaluateError(
                f"by: found the column {self.by!r}, a name that rows of the input or of the result have for something "
                "else. Rename the column."
            )
        for name, needed, optional in (
            ("recommendations", ["user", "item", *by], ("rank", "score")),
            ("relevant", ["user", "item"], ("relevance", "beaten", "segment")),
            ("before", ["user", "item"], ()),
            ("items", ["item"], ("vector", "categories", "popularity")),
        ):
            if (frame := getattr(self, name)) is not None:
                object.__setattr__(self, name, resolved(frame, needed, name, optional))
        if self.order not in ("list", *self.recommendations.columns):
            raise EvaluateError(
                "recommendations: found neither rank nor score, and no array of items: expected an order of each list"
            )
        self._same_type("relevant", self.relevant, "user", "item")
        self._check_needs()

    @cached_property
    def user_metrics(self) -> tuple[MetricSpec, ...]:
        """Metrics that each user has a value of."""
        at_cutoff = [name for name in self.metrics if name in _AT_CUTOFF and name not in OF_ITEMS]
        whole = [name for name in self.metrics if name in _WHOLE]
        return (
            *(MetricSpec(name, k) for name in at_cutoff for k in sorted(set(self.k))),
            *(MetricSpec(name, None) for name in whole),
        )

    @cached_property
    def list_metrics(self) -> tuple[MetricSpec, ...]:
        """Metrics of all lists together."""
        return tuple(MetricSpec(name, k) for name in self.metrics if name in OF_ITEMS for k in sorted(set(self.k)))

    @cached_property
    def order(self) -> str:
        """What puts recommendations in order: list, rank or score."""
        if isinstance(self.recommendations.schema["item"].dataType, ArrayType):
            return "score" if "score" in self.recommendations.columns else "list"
        return "rank" if "rank" in self.recommendations.columns else "score"

    @cached_property
    def runs(self) -> tuple[str | None, ...]:
        """A pass over one column, where there are runs: each is measured on all users."""
        if self.by is None:
            return (None,)
        rows = self.recommendations.select(column(self.by).cast("string")).distinct().collect()
        return tuple(sorted((row[0] for row in rows), key=lambda run: run or ""))

    @cached_property
    def item_facts(self) -> ItemFacts:
        return item_facts(self.items, self.before)

    def values(self) -> DataFrame:
        """(user, run, a column for each of `user_metrics`), user as `bucketing.encoded_ids` has it.

        Where it is made on Spark, that is when it is read, and faulty rows are found then.
        """
        task, (tables, fills) = UserMetrics(self._aggregator(0, None)), self._tables(None)

        def plan(*rows: Rows) -> DataFrame:
            return _filled(rows, fills).map_sorted(["bucket"], task).frame()

        return carry_out("metrics", plan, *tables)

    def totals(self, segments: DataFrame | None, bootstrap: int = 0, baseline: str | None = None) -> MetricTotals:
        """The sums over users, in one pass. Raises EvaluateError for faulty rows."""
        if isinstance(bootstrap, bool) or not isinstance(bootstrap, int) or bootstrap < 0:
            raise EvaluateError(f"bootstrap: found {bootstrap!r}, expected a number of samples, or 0")
        task, (tables, fills) = PartialMetrics(self._aggregator(bootstrap, baseline)), self._tables(segments)

        def plan(*rows: Rows) -> list[dict[str, Any]]:
            partial = _filled(rows, fills).map_sorted(["bucket"], task)
            if self.list_metrics:  # counts of items are added up before they come here
                partial = partial.map_sorted(KEY, AddItemCounts())
            found: list[dict[str, Any]] = partial.table().to_pylist()
            return found

        lists = isinstance(self.recommendations.schema["item"].dataType, ArrayType)
        with nullcontext() if lists else small_rows(self.recommendations.sparkSession):
            rows = carry_out("metrics", plan, *tables)
        totals = MetricTotals(rows, bootstrap, [metric.name == "rmse" for metric in self.user_metrics])
        for kind, message in PROBLEMS.items():
            if n := totals.problem(kind):
                raise EvaluateError(message.format(n=n))
        if not totals.segments(ALL):
            raise EvaluateError("relevant: found no user with a relevant item, expected some to measure on")
        return totals

    def _aggregator(self, replicates: int, baseline: str | None) -> MetricAggregator:
        return MetricAggregator(
            metrics=self.user_metrics,
            cutoffs=tuple(sorted({metric.k or 0 for metric in self.list_metrics})),
            order=self.order,
            seed=self.seed,
            replicates=replicates,
            runs=self.runs,
            baseline=baseline,
            items=self.item_facts,
            sampled_from=self.sampled_from or 0,
        )

    def _tables(self, segments: DataFrame | None) -> tuple[list[DataFrame], list[FillBuckets]]:
        """All tables, and the tasks that put them in buckets."""
        order = None if self.order == "list" else self.order
        gain, auc_share, segment = (
            name if name in self.relevant.columns else None for name in ("relevance", "beaten", "segment")
        )
        parts = [
            for_buckets(self.recommendations, RECOMMENDED, self.by, order),
            for_buckets(self.relevant, RELEVANT, segment, gain, auc_share),
        ]
        if segments is not None:
            segments = resolved(segments, ["user", "segment"], "segments")
            self._same_type("segments", segments, "user")
            parts.append(for_buckets(segments, SEGMENT, "segment", item=None))
        if self.before is not None and set(_OF_BEFORE).intersection(self.metrics):
            parts.append(for_buckets(self.before, BEFORE))
        return [table for table, _ in parts], [task for _, task in parts]

    def _same_type(self, title: str, frame: DataFrame, *names: str) -> None:
        for name in names:
            ours, theirs = self.recommendations.schema[name].dataType, frame.schema[name].dataType
            ours = ours.elementType if isinstance(ours, ArrayType) else ours
            if ours != theirs and not (isinstance(ours, IntegralType) and isinstance(theirs, IntegralType)):
                raise EvaluateError(
                    f"{name}: found {ours.simpleString()} in recommendations and {theirs.simpleString()} in {title}; "
                    "expected one type. Cast one of them."
                )

    def _check_needs(self) -> None:
        """Raise EvaluateError where a metric lacks what it is made from."""
        if self.before is not None:
            self._same_type("before", self.before, "user", "item")
        if self.items is not None:
            self._same_type("items", self.items, "item")
        columns = () if self.items is None else self.items.columns
        known = {
            "before": self.before is not None,
            "popularity": self.before is not None or "popularity" in columns,
            "catalogue": self.items is not None or self.before is not None,
            "vector": "vector" in columns,
            "categories": "categories" in columns,
            "sampled_from": self.sampled_from is not None,
            "score": self.order == "score",
            "relevance": "relevance" in self.relevant.columns,
        }
        check_needs(self.metrics, {name for name, is_known in known.items() if is_known})


def _filled(tables: Sequence[Rows], fills: Sequence[FillBuckets]) -> Rows:
    """All tables in buckets."""
    first, *others = (rows.map_rows(fill) for rows, fill in zip(tables, fills, strict=True))
    for other in others:
        first = first.union(other)
    return first


def check_names(metrics: Sequence[str]) -> None:
    """Raise EvaluateError where a metric does not exist."""
    known = (*_AT_CUTOFF, *_WHOLE)
    if unknown := [name for name in metrics if name not in known]:
        raise EvaluateError(f"metrics: found {', '.join(map(repr, unknown))}, expected any of {', '.join(known)}")


def check_needs(metrics: Sequence[str], known: Set[str]) -> None:
    """Raise EvaluateError where a metric is made from what is not among `known`, keys of `_NEEDS`."""
    for what, (title, names) in _NEEDS.items():
        lacking = [name for name in metrics if name in names or (what == "sampled_from" and name.startswith(CORRECTED))]
        if lacking and what not in known:
            raise EvaluateError(f"metrics: found {', '.join(lacking)}, which take {title}: expected it, too")


_NEEDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "before": ("before, the rows (user, item) that came before", _OF_BEFORE),
    "popularity": ("before, or items with a column popularity", _OF_POPULARITY),
    "catalogue": ("items or before, for the catalogue", OF_ITEMS),
    "vector": ("items with a column vector", ("diversity",)),
    "categories": ("items with a column categories", ("category_diversity", "miscalibration")),
    "sampled_from": ("sampled_from, the size of the catalogue", ()),
    "score": ("recommendations with a score", _OF_RATINGS),
    "relevance": ("relevant with a relevance", ("rmse", "mae")),
}
"""What metrics are made from, beside lists and what is relevant."""
