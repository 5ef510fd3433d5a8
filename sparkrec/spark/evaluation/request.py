"""What is asked of which tables of recommendations: checked, and put into buckets that a judge can read."""

from __future__ import annotations

from collections.abc import Sequence, Set
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, IntegralType

from sparkrec.errors import EvaluateError
from sparkrec.kernels.metrics.accuracy import AT_CUTOFF, WHOLE
from sparkrec.kernels.metrics.measures import CORRECTED, LIFT, OF_LISTS, OF_SCORES, Catalogue
from sparkrec.spark.evaluation.buckets import buckets
from sparkrec.spark.evaluation.item_facts import catalogue_of
from sparkrec.spark.evaluation.partial_metrics import ALL, BEFORE, RECOMMENDED, RELEVANT, SEGMENT, Judge, Wanted
from sparkrec.spark.evaluation.totals import SCHEMA, Found, together
from sparkrec.spark.platform.session import small_rows
from sparkrec.spark.platform.sources import column, resolved

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
class Question:
    """Arguments as in `evaluation.evaluate`. Raises EvaluateError for what cannot be answered."""

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
        if wrong := [each for each in self.k if isinstance(each, bool) or not isinstance(each, int) or each < 1]:
            raise EvaluateError(f"k: found {wrong[0]!r}, expected whole numbers from 1")
        if not self.wanted and not self.of_items:
            raise EvaluateError("nothing to measure: found no metric with a cutoff in `metrics` and `k`")
        by = [self.by] if self.by else []
        if self.by is not None and self.by.lower() in {*_OURS, *(metric.title for metric in self.wanted)}:
            raise EvaluateError(
                f"by: found the column {self.by!r}, a name that rows of the input or of the result have for something "
                "else. Rename the column."
            )
        for name, wanted, optional in (
            ("recommendations", ["user", "item", *by], ("rank", "score")),
            ("relevant", ["user", "item"], ("relevance", "beaten", "segment")),
            ("before", ["user", "item"], ()),
            ("items", ["item"], ("vector", "categories", "popularity")),
        ):
            if (frame := getattr(self, name)) is not None:
                object.__setattr__(self, name, resolved(frame, wanted, name, optional))
        if self.order not in ("list", *self.recommendations.columns):
            raise EvaluateError(
                "recommendations: found neither rank nor score, and no array of items: expected an order of each list"
            )
        self._same_type("relevant", self.relevant, "user", "item")
        self._check_needs()

    @cached_property
    def wanted(self) -> tuple[Wanted, ...]:
        """Metrics that users have values of."""
        at_cutoff = [name for name in self.metrics if name in _AT_CUTOFF and name not in OF_ITEMS]
        found = [Wanted(name, each) for name in at_cutoff for each in sorted(set(self.k))]
        return (*found, *(Wanted(name, None) for name in self.metrics if name in _WHOLE))

    @cached_property
    def of_items(self) -> tuple[Wanted, ...]:
        """Metrics of all lists together."""
        return tuple(Wanted(name, each) for name in self.metrics if name in OF_ITEMS for each in sorted(set(self.k)))

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
    def catalogue(self) -> Catalogue:
        return catalogue_of(self.items, self.before)

    def judge(self, replicates: int, baseline: str | None) -> Judge:
        if isinstance(replicates, bool) or not isinstance(replicates, int) or replicates < 0:
            raise EvaluateError(f"bootstrap: found {replicates!r}, expected a number of samples, or 0")
        cutoffs = tuple(sorted({metric.k or 0 for metric in self.of_items}))
        size = self.sampled_from or 0
        return Judge(self.wanted, cutoffs, self.order, self.seed, replicates, self.runs, baseline, self.catalogue, size)

    def rows(self, segments: DataFrame | None) -> DataFrame:
        """All tables in buckets, those of a user in one task, bucket after bucket."""
        label = column(self.by).cast("string") if self.by else None
        order = None if self.order == "list" else F.col(self.order)
        gain, beaten, segment = (
            F.col(name) if name in self.relevant.columns else None for name in ("relevance", "beaten", "segment")
        )
        parts = [
            buckets(self.recommendations, RECOMMENDED, label, order),
            buckets(self.relevant, RELEVANT, segment, gain, beaten),
        ]
        if segments is not None:
            segments = resolved(segments, ["user", "segment"], "segments")
            self._same_type("segments", segments, "user")
            about = segments.select("user", F.lit(0).alias("item"), F.col("segment").cast("string"))
            parts.append(buckets(about, SEGMENT, F.col("segment")))
        if self.before is not None and set(_OF_BEFORE).intersection(self.metrics):
            parts.append(buckets(self.before, BEFORE))
        rows = parts[0]
        for each in parts[1:]:
            rows = rows.unionAll(each)
        return rows.repartition("bucket").sortWithinPartitions("bucket")

    def answer(self, segments: DataFrame | None, replicates: int = 0, baseline: str | None = None) -> Found:
        """The one pass. Raises EvaluateError for what was wrong in it."""
        judged = self.rows(segments).mapInArrow(self.judge(replicates, baseline), SCHEMA)
        lists = isinstance(self.recommendations.schema["item"].dataType, ArrayType)
        with nullcontext() if lists else small_rows(judged.sparkSession):
            rows = together(judged) if self.of_items else judged.collect()
        found = Found(rows, replicates, [metric.name == "rmse" for metric in self.wanted])
        for kind, message in PROBLEMS.items():
            if n := found.problem(kind):
                raise EvaluateError(message.format(n=n))
        if not found.segments(ALL):
            raise EvaluateError("relevant: found no user with a relevant item, expected some to measure on")
        return found

    def _same_type(self, title: str, frame: DataFrame, *names: str) -> None:
        for name in names:
            here, there = self.recommendations.schema[name].dataType, frame.schema[name].dataType
            here = here.elementType if isinstance(here, ArrayType) else here
            if here != there and not (isinstance(here, IntegralType) and isinstance(there, IntegralType)):
                raise EvaluateError(
                    f"{name}: found {here.simpleString()} in recommendations and {there.simpleString()} in {title}; "
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
        check_needs(self.metrics, {name for name, there in known.items() if there})


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

PROBLEMS = {
    "nobody": "found {n:,} rows whose user or item is null, expected none. Drop those rows.",
    "everyone": "segments: found {n:,} users in a segment named all, which is that of everyone. Name it otherwise.",
    "segments": "segments: found a segment of items with the name of one of users, expected different names.",
    "nan": "recommendations: found {n:,} scores that are null or NaN, expected numbers. Drop those rows, or mend the "
    "model.",
    "ranks": "recommendations: found {n:,} ranks that are not 1, 2, 3, ... of their user, expected one of each. Number "
    "them anew, or pass scores instead.",
    "repeats": "recommendations: found an item more than once in the list of a user, expected each once: it would "
    "count twice. Drop duplicates.",
    "relevance": "relevant: found {n:,} rows whose relevance is null, NaN or infinite, expected a finite number.",
    "unknown": "items: found {n:,} rows of recommendations or before whose item is not in the catalogue, expected all. "
    "Pass items that has them.",
    "candidates": "relevant: found {n:,} users with more than one relevant item, expected one, as corrected metrics "
    "take it: one item among sampled ones.",
}
"""What can be wrong with rows."""
