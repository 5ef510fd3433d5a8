"""What a policy would have earned, from the events that another one logged: one pass over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.errors import EvaluateError
from sparkrec.kernels.arrays import F64
from sparkrec.kernels.metrics.off_policy import doubly_robust, ips, snips
from sparkrec.spark.evaluation.totals import SCHEMA, Found, Totals, tidy
from sparkrec.spark.platform.failures import mendable
from sparkrec.spark.platform.sources import column, quoted, resolved

_COLUMNS = ("reward", "propensity", "probability")
_OF_REWARDS = ("predicted", "expected")
_ESTIMATORS = ("ips", "snips", "doubly_robust")


@mendable()
def evaluate_policy(logged: DataFrame, by: str | None = None, most: float | None = None) -> DataFrame:
    """(`by`, metric, value, standard_error, low, high, events, effective_events) of a policy; see
    `kernels.metrics.off_policy`.

    logged  events of a logging policy: reward; propensity, the chance in (0, 1] with which it did what it did; and
            probability, the chance in [0, 1] with which the policy in question would have. With a model of rewards, for
            doubly_robust: predicted, what it says of what was done, and expected, its mean over what the policy would
            have done
    by      column that tells policies apart, where the events come once for each
    most    largest weight, probability / propensity, that counts: larger ones are cut to it, which has a bias and less
            variance; None: none is

    Events are taken as independent. effective_events are how many of equal weight would say as much: where they are
    few, so is what is known. Raises EvaluateError where a number is out of range.
    """
    logged = resolved(logged, [*_COLUMNS, *([by] if by else [])], "logged", _OF_REWARDS)
    modelled = [name for name in _OF_REWARDS if name in logged.columns]
    if len(modelled) == 1:
        raise EvaluateError(f"logged: found {modelled[0]} alone, expected both of predicted and expected, or neither")
    if most is not None and not most > 0:
        raise EvaluateError(f"most: found {most!r}, expected a weight above 0")
    names = _ESTIMATORS if modelled else _ESTIMATORS[:2]

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        totals = Totals()
        for batch in batches:
            runs = batch.column("run").to_numpy(zero_copy_only=False)
            columns = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in (*_COLUMNS, *modelled)}
            if wrong := int((~_in_range(columns)).sum()):
                totals.problem("range", wrong)
                continue
            weight = np.minimum(columns["probability"] / columns["propensity"], np.inf if most is None else most)
            found = [ips(weight, columns["reward"]), snips(weight, columns["reward"])]
            if modelled:
                found.append(doubly_robust(weight, columns["reward"], columns["predicted"], columns["expected"]))
            sums, weights = (np.stack(each, axis=1) for each in zip(*found, strict=True))
            for run in np.unique(runs):
                own = runs == run
                totals.add("values", run, "all", sums[own], weights[own], np.zeros((int(own.sum()), 0)))
        yield from totals.batches()

    label = F.coalesce(column(by).cast("string"), F.lit("")) if by else F.lit("")
    numbers = [F.col(name).cast("double").alias(name) for name in (*_COLUMNS, *modelled)]
    rows = logged.select(label.alias("run"), *numbers).mapInArrow(work, SCHEMA).collect()
    found = Found(rows, 0, [False] * len(names))
    if n := found.problem("range"):
        raise EvaluateError(
            f"logged: found {n:,} events with a null, an infinite number, a propensity outside (0, 1] or a probability "
            "outside [0, 1], expected none"
        )
    if not found.runs():
        raise EvaluateError("logged: found no event, expected some to measure on")
    out = []
    for run in found.runs():
        for at, name in enumerate(names):
            events, effective = found.users("values", run, "all", 0), found.effective(run, "all", 1)
            out.append((run, name, *found.estimate("values", run, "all", at), events, effective))
    title = by or "by"
    columns = "metric string, value double, standard_error double, low double, high double, events long"
    table = tidy(logged.sparkSession, out, f"{quoted(title)} string, {columns}, effective_events double")
    return table if by else table.drop(title)


def _in_range(columns: dict[str, F64]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    finite = np.all([np.isfinite(each) for each in columns.values()], axis=0)
    propensity, probability = columns["propensity"], columns["probability"]
    return np.asarray(finite & (propensity > 0) & (propensity <= 1) & (probability >= 0) & (probability <= 1))
