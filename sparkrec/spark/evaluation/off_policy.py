"""What a policy would have earned, from the events that another one logged: one pass over them."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.errors import EvaluateError
from sparkrec.spark.evaluation.collect import result_frame
from sparkrec.spark.evaluation.policy_totals import ESTIMATORS, EVENT_COLUMNS, OUT_OF_RANGE, REWARD_MODEL, PolicyTotals
from sparkrec.spark.evaluation.totals import MetricTotals
from sparkrec.spark.platform.failures import mendable
from sparkrec.spark.platform.sources import column, quoted, resolved
from sparkrec.spark.runner import map_rows


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
    logged = resolved(logged, [*EVENT_COLUMNS, *([by] if by else [])], "logged", REWARD_MODEL)
    modelled = [name for name in REWARD_MODEL if name in logged.columns]
    if len(modelled) == 1:
        raise EvaluateError(f"logged: found {modelled[0]} alone, expected both of predicted and expected, or neither")
    if most is not None and not most > 0:
        raise EvaluateError(f"most: found {most!r}, expected a weight above 0")
    names = ESTIMATORS if modelled else ESTIMATORS[:2]
    label = F.coalesce(column(by).cast("string"), F.lit("")) if by else F.lit("")
    numbers = [F.col(name).cast("double").alias(name) for name in (*EVENT_COLUMNS, *modelled)]
    totals_of_tasks = map_rows(logged.select(label.alias("run"), *numbers), PolicyTotals(bool(modelled), most))
    totals = MetricTotals(totals_of_tasks.collect(), 0, [False] * len(names))
    if n := totals.problem(OUT_OF_RANGE):
        raise EvaluateError(
            f"logged: found {n:,} events with a null, an infinite number, a propensity outside (0, 1] or a probability "
            "outside [0, 1], expected none"
        )
    if not totals.runs():
        raise EvaluateError("logged: found no event, expected some to measure on")
    rows = []
    for run in totals.runs():
        for metric, name in enumerate(names):
            events, effective = totals.users("values", run, "all", 0), totals.effective(run, "all", 1)
            rows.append((run, name, *totals.estimate("values", run, "all", metric), events, effective))
    title = by or "by"
    columns = "metric string, value double, standard_error double, low double, high double, events long"
    table = result_frame(logged.sparkSession, rows, f"{quoted(title)} string, {columns}, effective_events double")
    return table if by else table.drop(title)
