"""How good a model's rankings and ratings are: every metric at every cutoff, overall and by segment, in one pass.

Formulas are in `kernels.metrics`. What is averaged, and over whom:

- A user counts when it has a held-out item (in the segment). One for whom the model has no list counts as 0, in AUC as
  1/2: nothing is known of any pair. In explicit datasets every held-out row is relevant, whatever its rating.
- Segments: `all`; `users:1/3`, the third of users with fewest train interactions; `items:1/3`, the third of the
  catalogue with fewest, where the truth is restricted to those items and the ranking is the same. Equal counts stay
  together.
- A held-out item that the model does not know, or that the user has seen where full ranking leaves that out, cannot be
  ranked: a miss. `ranking.Unrankable` counts these.
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

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import pyarrow as pa
from pyspark.sql import DataFrame

from sparkrec.config import FullRanking, GivenCandidates
from sparkrec.errors import ConfigError, EvaluateError
from sparkrec.kernels.metrics.accuracy import AT_CUTOFF
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.evaluation.clicks import METRICS as CLICK_METRICS
from sparkrec.spark.evaluation.clicks import Clicks
from sparkrec.spark.evaluation.protocols import RankingRequest, Unrankable, measure_rankings
from sparkrec.spark.evaluation.ratings import rating_errors
from sparkrec.spark.evaluation.segments import GROUPS, grouped
from sparkrec.spark.in_place import carry_out, count, holding
from sparkrec.spark.model.field_queries import first_queries, score_events
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.serving import bind
from sparkrec.spark.platform.few import narrowed
from sparkrec.spark.retrieval.topk import score_pairs
from sparkrec.spark.runner import Rows


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


class ModelMetrics(NamedTuple):
    """What a model is worth."""

    metrics: list[Metric]
    calibration: pa.Table | None
    """Of clicks: `Clicks.calibration`."""
    examples: dict[int, list[int]]
    """Lists of a few users."""
    unrankable: Unrankable | None
    """None: rankings were not measured."""


def overall(metrics: Iterable[Metric]) -> dict[str, float]:
    """Metrics over all users, by name: {"ndcg@10": 0.43, ...}."""
    return {each.name: each.value for each in metrics if each.segment == "all"}


def check_metric(metric: str) -> None:
    """Raise ConfigError where `measure` knows no such metric."""
    name, _, cutoff = metric.partition("@")
    whole = ("rmse", "mae", "auc", *CLICK_METRICS, "grouped_click_auc")
    at_cutoff = (*AT_CUTOFF, "coverage", "novelty")
    if metric not in whole and not (name in at_cutoff and cutoff.isdecimal() and int(cutoff) > 0):
        raise ConfigError(
            f"metric {metric!r} does not exist. Choose {', '.join(whole)}, or one with a cutoff, as ndcg@10, of "
            f"{', '.join(at_cutoff)}."
        )


def measure(
    model: Model,
    dataset: Dataset,
    truth: DataFrame,
    seen: DataFrame | None,
    metric: str,
    clip: tuple[float, float] | None = None,
    exclude_seen: bool = True,
) -> float:
    """One metric under full ranking, by its name: `rmse`, `mae`, `auc`, or another with its cutoff as in `ndcg@10`."""
    check_metric(metric)
    name, _, cutoff = metric.partition("@")
    full = FullRanking(exclude_seen=exclude_seen)
    if metric in ("rmse", "mae"):
        found = metrics_of(model, dataset, truth, seen, None, ratings=True, clip=clip)
    elif metric in CLICK_METRICS or metric == "grouped_click_auc":
        found = metrics_of(model, dataset, truth, seen, None, clicks=True)
    elif metric == "auc":
        found = metrics_of(model, dataset, truth, seen, RankingRequest(full, [1], []))
    else:
        found = metrics_of(model, dataset, truth, seen, RankingRequest(full, [int(cutoff)], [name], auc=False))
    return overall(found.metrics)[metric]


def metrics_of(
    model: Model,
    dataset: Dataset,
    truth: DataFrame,
    seen: DataFrame | None,
    rankings: RankingRequest | None,
    *,
    include_validation: bool = False,
    segments: int = 1,
    ratings: bool = False,
    clip: tuple[float, float] | None = None,
    clicks: bool = False,
) -> ModelMetrics:
    """Measure rankings (None: none), and predicted ratings and clicks if asked. A model that sees
    the context ranks for each user in that of the first held-out row.

    truth               (user, item, value) held-out rows
    seen                (user, item, value, confidence, timestamp) what came before: histories, from which users are
                        answered to whom the model was not fitted (see `serving`), and what full ranking excludes; None:
                        train came before, and nothing is excluded
    include_validation  whether the model was fitted to train and validation together
    segments            number of groups of users, and of items; 1: `all` only
    Raises EvaluateError when `truth` is empty, or the dataset has no candidates and the protocol needs them.
    """
    if rankings and isinstance(rankings.protocol, GivenCandidates) and dataset.candidates is None:
        raise EvaluateError(
            f"dataset {dataset.reference} came without candidates to rank. Use protocol full or sampled, or prepare it "
            "with split.candidates."
        )
    with holding() as hold:
        truth = hold(grouped(truth, dataset, segments))
        if count("metrics", truth) == 0:
            raise EvaluateError(
                f"dataset {dataset.reference} has no row in that split to measure on. "
                "Prepare it with one, or choose another."
            )
        with_auc = rankings is not None and rankings.full and rankings.auc
        predicted = None
        if model.serving.sees_fields:
            predicted = score_events(model, dataset, truth.drop("confidence"))
        if predicted is None or rankings is not None:
            before = dataset.train if seen is None else seen
            bound = bind(
                model,
                dataset,
                truth,
                before,
                include_validation=include_validation,
                queries=lambda _: first_queries(dataset, truth),
            )
            model = bound.model
        scored = None
        if with_auc or ((ratings or clicks) and predicted is None):
            scored = hold(score_pairs(model, carry_out("metrics", _pairs, truth)))
        if predicted is None and scored is not None:
            predicted = carry_out("metrics", _joined, truth, scored)
        found: list[Metric] = []
        lists: dict[int, list[int]] = {}
        unrankable = None
        calibration: pa.Table | None = None
        if rankings is not None:
            targets = scored if with_auc else None
            rows, lists, unrankable = measure_rankings(model, dataset, truth, targets, seen, segments, rankings)
            found = [Metric(*row[1:]) for row in rows]
        if ratings:
            assert predicted is not None
            errors = partial(rating_errors, clip=clip, segments=segments)
            columns = narrowed(predicted, "user", "value", "score", *GROUPS), narrowed(dataset.train, "value")
            told = carry_out("metrics", lambda *rows: [*errors(*rows)], *columns)
            found += [
                Metric(name, None, segment, value, None, None, None, users) for segment, name, value, users in told
            ]
        if clicks:
            assert predicted is not None
            judged = Clicks(predicted)
            calibration = judged.calibration()
            for segment, name, value, users in judged.metrics(segments):
                found.append(Metric(name, None, segment, value, None, None, None, users))
    return ModelMetrics(found, calibration, lists, unrankable)


def _pairs(rows: Rows) -> DataFrame:
    return rows.select("user", "item").distinct().frame()


def _joined(truth: Rows, scored: Rows) -> DataFrame:
    return truth.joined(scored, "user", "item").frame()
