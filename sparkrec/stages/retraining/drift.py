"""What lists are like when they are published, and how good they were once people had seen them.

People click on what they are shown. What was served is measured on a log that it has a part in, while the gate's
promise is of a log that the champion before had a part in: so it tends to come to more than was promised, and says
nothing of what other lists would have come to. Less than was promised is a bad sign all the more.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import Row
from pyspark.sql import functions as F

from sparkrec import tables
from sparkrec.config import DriftChecks, GateSettings
from sparkrec.errors import InputError, Refused
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.evaluation.evaluate import evaluate
from sparkrec.spark.in_place import carry_out, holding
from sparkrec.spark.platform.lake import Lake, Run
from sparkrec.spark.runner import Rows
from sparkrec.stages.ledger import instant_of
from sparkrec.stages.retraining.distributions import divergence, histogram, quantiles
from sparkrec.stages.retraining.findings import found_before, judged, settle
from sparkrec.stages.retraining.serve import Lists, lists_of

log = logging.getLogger(__name__)

_QUANTILES = (0.1, 0.5, 0.9)
_IDS: dict[str, Any] = {"user": "user_id", "item": "item_id"}


def measure_served(
    checks: DriftChecks, gate: GateSettings, lake: Lake, name: str, changes: Sequence[Row], new: Dataset
) -> dict[str, float]:
    """How good the lists were that were served when the latest events took place, beside what the gate had promised.

    They are measured as the gate measures, on what the test split of the night has of their time, for users who had
    lists; recorded in the table `drift`. Nothing is, where none of it took place while a champion was served.

    changes  of the champion, oldest first
    Raises InputError where `drift.served` is to fail and is beyond its limit.
    """
    held_out = new.times("test")
    term = term_at(changes, held_out[1]) if held_out is not None else None
    if term is None:
        return {}
    change, start, end = term
    try:
        run = lake.finished_run("recommend", change["recommendations"])
        lists = lists_of(lake, run).select("user_id", "item_id", "rank")
    except InputError as error:
        log.warning("cannot measure what was served of %s: %s", change["model"], error)
        return {}
    at = F.unix_micros("timestamp")
    events = new.test.where((at > start) & (at <= end)).select("user", "item")
    events = events.join(new.users.select("user", "user_id"), "user").join(new.items.select("item", "item_id"), "item")
    metric, _, k = gate.metric.partition("@")
    asked = [*dict.fromkeys((metric, "hit_rate"))]
    with holding() as hold:
        had_lists = events.join(lists.select("user_id").distinct(), "user_id", "left_semi")
        later = hold(had_lists.select("user_id", "item_id"))
        if later.isEmpty():
            return {}
        found = evaluate(lists, later, asked, [int(k)], **_IDS).collect()
    rows: list[dict[str, Any]] = []
    for row in found:
        measure = f"{row['metric']}@{row['k']}"
        values = {column: row[column] for column in ("value", "low", "high", "users")}
        rows.append({"measure": measure, "expected": promised(changes, change, measure), **values})
    _record(lake, name, run, True, rows, f"drift:{name}:{change['number']}:{new.reference}")
    (main,) = (row for row in rows if row["measure"] == gate.metric)
    told = {"users": float(main["users"]), gate.metric: main["value"]}
    share = None
    if main["expected"]:
        told["promised"] = main["expected"]
        share = main["value"] / main["expected"] if main["users"] >= gate.min_users else None
    if failed := _settled(checks, lake, name, new.reference, {"served": share}):
        raise InputError(f"{run.reference} has not kept what the gate had promised: {failed}.")
    return {f"served_{key}": value for key, value in told.items()}


def check_drift(checks: DriftChecks, lake: Lake, name: str, before: Row | None, lists: Lists) -> dict[str, float]:
    """What lists are like beside those that are served, before they replace them; recorded in the table `drift`.

    before  the champion; None: there is none
    Raises Refused where a check is to fail and is beyond its limit.
    """
    run = lists.run
    dataset = Dataset.open(lake, run.inputs["dataset"])
    values = _like(lists, dataset)
    known = _recorded(lake, name, before["recommendations"]) if before is not None else {}
    users = int(values.pop("users"))
    rows = [
        {"measure": measure, "value": value, "expected": known.get(measure), "users": users}
        for measure, value in values.items()
    ]
    _record(lake, name, run, False, rows, f"drift:{name}:{run.reference}")
    asked = {"recommended": values.get("divergence"), "fallback": values["fallback"]}
    if failed := _settled(checks, lake, name, dataset.reference, asked):
        raise Refused(f"the lists of {run.reference} are not served: {failed}.")
    return {f"lists_{measure}": value for measure, value in values.items()}


def term_at(changes: Sequence[Row], micros: int) -> tuple[Row, int, int] | None:
    """Which change of the champion was the last one before an instant, and from when to when it was; None where it is
    earlier than all."""
    end = micros
    for change in reversed(changes):
        if (start := int(instant_of(change, "at").timestamp() * 1e6)) < micros:
            return change, start, end
        end = micros
    return None


def promised(changes: Sequence[Row], change: Row, metric: str) -> float | None:
    """What the gate had measured of the model of a change when it was last promoted by it; None where it never was."""
    for each in reversed(changes):
        if each["model"] == change["model"] and each["number"] <= change["number"]:
            value = (each["metrics"] or {}).get(f"challenger_{metric}")
            if value is not None:
                return float(value)
    return None


def _like(lists: Lists, dataset: Dataset) -> dict[str, float]:
    """What lists are like, whoever likes them; and how many `users` have one."""

    def plan(rows: Rows, served: Rows | None) -> dict[str, float | None]:
        first = rows.where_is("rank", 1)
        users = first.count()
        values: dict[str, float | None] = {"users": users, "fallback": first.where_is("fallback", True).count() / users}
        scores = quantiles(*histogram(rows.where_is("fallback", False), "score"), _QUANTILES)
        values |= {f"score_p{100 * share:g}": score for share, score in zip(_QUANTILES, scores, strict=False)}
        if served is None:
            return values
        counts = served.counted("item_id"), rows.counted("item_id")
        return {**values, "divergence": divergence(*counts, "item_id", "n")}

    found = carry_out("lists", plan, lists.rows, lists.served)
    of_train = dataset.manifest["counts"]["train"]
    items = dataset.items.select("item_id", (F.col("train_count") / max(of_train["users"], 1)).alias("popularity"))
    ranked = lists.rows.select("user_id", "item_id", "rank")
    first = ranked.where("rank = 1").select("user_id", "item_id")  # so that each user counts
    of_lists = evaluate(ranked, first, ["popularity", "coverage"], [lists.k], items=items, **_IDS).collect()
    found |= {f"{row['metric']}@{row['k']}": row["value"] for row in of_lists}
    return {measure: float(value) for measure, value in found.items() if value is not None}


def _recorded(lake: Lake, name: str, run: str) -> Mapping[str, float]:
    """Values by measure of the lists of a run, as they were when they were published."""
    if not lake.has_table(tables.DRIFT.name):
        return {}
    rows = lake.table(tables.DRIFT.name).where((F.col("name") == name) & (F.col("run") == run) & ~F.col("seen"))
    return {row["measure"]: row["value"] for row in rows.orderBy("at").collect()}


def _record(lake: Lake, name: str, run: Run, seen: bool, rows: Sequence[Mapping[str, Any]], transaction: str) -> None:
    common = {
        "name": name,
        "run": run.reference,
        "model": run.inputs["model"],
        "seen": seen,
        "at": dt.datetime.now(dt.timezone.utc),
    }
    lake.add_rows(tables.DRIFT, [{**common, **row} for row in rows], transaction)


def _settled(checks: DriftChecks, lake: Lake, name: str, dataset: str, values: Mapping[str, float | None]) -> str:
    """What has failed of the checks that there are values of, None or not."""
    found = judged("drift", checks, values, found_before(lake, name, dataset))
    return "; ".join(settle(lake, name, dataset, [each for each in found if each.check in values]))
