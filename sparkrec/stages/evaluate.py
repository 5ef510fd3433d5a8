"""Measure a model on a held-out split."""

from __future__ import annotations

import datetime as dt
import io
import logging
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import storage, tables
from sparkrec.config import EvaluateSettings, ItemTitles, model_settings
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.evaluation.model_metrics import metrics_of, overall
from sparkrec.spark.evaluation.protocols import RankingRequest, Unrankable, check_metrics
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.model.explain import importance
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.platform.digests import content_digest
from sparkrec.spark.platform.few import narrowed
from sparkrec.spark.platform.lake import Lake, Run
from sparkrec.spark.platform.sources import column, read_columns
from sparkrec.spark.runner import Rows
from sparkrec.stages.checks import check_measurement, prepared_as
from sparkrec.stages.planned import Planned
from sparkrec.stages.running import once, stage

log = logging.getLogger(__name__)

_LISTS = ("had", "recommended", "held_out")
"""Of an example."""
_SHOWN = 10
"""Items of a user in an example."""


def check(settings: EvaluateSettings) -> None:
    """What the settings alone tell. Raises EvaluateError for a metric that the protocol cannot have."""
    if settings.protocol is not None:
        check_metrics(settings.protocol, settings.metrics)


def inputs(settings: EvaluateSettings, lake: Lake) -> dict[str, Any]:
    """The model and its dataset, pinned, and a digest of the titles."""
    check(settings)
    run = lake.finished_run("train", settings.model)
    dataset = run.inputs["dataset"]
    model = model_settings(run.settings["model"])
    with_validation = bool(run.settings["include_validation"])
    check_measurement(settings, model, with_validation, prepared_as(lake, dataset), run.reference, dataset)
    pinned = {"model": run.reference, "dataset": run.inputs["dataset"]}
    if settings.titles is not None:
        pinned["titles"] = content_digest(_titles(settings.titles, lake))["digest"]
    return pinned


def open_run(settings: EvaluateSettings, lake: Lake) -> Run:
    """The run of these settings."""
    pinned = inputs(settings, lake)
    return lake.open_run("evaluate", pinned["model"].partition("@")[0], settings, pinned)


def plan(settings: EvaluateSettings, lake: Lake) -> Planned:
    """What it would read and write."""
    users = ["users"] if settings.keep_users and settings.protocol is not None else []
    return Planned.of(open_run(settings, lake), lake, ["metrics.json", *users], [tables.METRICS.name])


@stage("evaluate")
@once(open_run, "evaluation")
def evaluate(settings: EvaluateSettings, lake: Lake, run: Run) -> Run:
    """Every metric into the table `metrics` and a `metrics.json` beside the manifest; see `evaluation.model_metrics`.

    Full ranking leaves out what the user has in train and, when the test split is measured, in validation, unless
    `exclude_seen` is false. Held-out items that cannot be ranked are `unrankable` in the manifest and metrics.json.
    Raises EvaluateError when the split is empty, the model was fitted to it, or the protocol lacks its candidates.
    """
    pinned = run.inputs
    trained = lake.finished_run("train", pinned["model"])
    dataset = Dataset.open(lake, pinned["dataset"])
    model, truth = Model.load(lake, trained), dataset.test if settings.split == "test" else dataset.validation
    seen = dataset.observed(include_validation=settings.split == "test")
    rankings = None
    if settings.protocol is not None:
        rankings = RankingRequest(
            settings.protocol,
            settings.cutoffs,
            settings.metrics,
            bootstrap=settings.bootstrap,
            users_to=f"{run.path}/users" if settings.keep_users else None,
            examples=settings.examples,
        )
    found, calibrated, lists, unrankable = metrics_of(
        model,
        dataset,
        truth,
        seen,
        rankings,
        include_validation=bool(trained.settings["include_validation"]),
        segments=settings.segments,
        ratings=settings.ratings,
        clip=settings.clip,
        clicks=settings.clicks,
    )
    about = {
        "run": run.id,
        "model": trained.reference,
        "kind": trained.settings["model"]["kind"],
        "dataset": dataset.reference,
        "split": settings.split,
        "protocol": _title(settings),
    }
    now = dt.datetime.now(dt.timezone.utc)
    rows = [
        (*about.values(), m.segment, m.metric, m.k, m.value, m.users, now, m.standard_error, m.low, m.high)
        for m in found
    ]
    frame = lake.spark.createDataFrame(rows, tables.METRICS.columns)
    lake.append(tables.METRICS.name, frame, f"metrics:{run.id}", tables.METRICS, new_columns=True)
    report: dict[str, Any] = {"segments": {}, "intervals": {}}
    for metric in found:
        segment = report["segments"].setdefault(metric.segment, {"users": metric.users})
        segment[metric.name] = metric.value
        if metric.low is not None:
            report["intervals"].setdefault(metric.segment, {})[metric.name] = [metric.low, metric.high]
    if calibrated is not None:
        report["calibration"] = calibrated.to_pylist()
        if find_spec("matplotlib"):
            storage.write(f"{run.path}/calibration.png", _plot(calibrated))
    if lists:
        report["examples"] = _examples(lists, dataset, seen, truth)
        if settings.titles is not None:
            named = {item for each in report["examples"] for key in _LISTS for item in each[key]}
            titles = _titles(settings.titles, lake).where(F.col("item_id").isin([*named]))
            report["titles"] = dict(titles.groupBy("item_id").agg(F.min("title")).collect())
    if unrankable is not None:
        report["unrankable"] = unrankable._asdict()
        _tell(unrankable)
    if settings.importance:
        report["importance"] = importance(model, dataset, truth)
    storage.write_json(f"{run.path}/metrics.json", {**about, **report})
    facts = {name: report[name] for name in ("unrankable",) if name in report}
    run = run.publish(metrics=overall(found), users=report["segments"]["all"]["users"], **facts)
    log.info("%s on %s: %s", trained.reference, settings.split, overall(found))
    return run


def _tell(unrankable: Unrankable) -> None:
    pairs, no_list, unknown, seen = unrankable
    reasons = {
        f"{no_list:,} of users for whom the model has no list": no_list,
        f"{unknown:,} that it does not know": unknown,
        f"{seen:,} that the user had before (protocol.exclude_seen: false ranks them)": seen,
    }
    if misses := sum(reasons.values()):
        told = ", ".join(reason for reason, n in reasons.items() if n)
        log.warning("%s of %s held-out items cannot be ranked and are misses: %s", f"{misses:,}", f"{pairs:,}", told)


def _examples(lists: dict[int, list[int]], dataset: Dataset, seen: DataFrame, truth: DataFrame) -> list[dict[str, Any]]:
    """Of a few users: what they had, what is recommended, and what was held out, by the ids of the log."""

    def plan(users: Rows, items: Rows, seen: Rows, truth: Rows) -> list[dict[str, Any]]:
        chosen = users.of(pa.table({"user": pa.array(lists, pa.int64())}))
        listed = users.of(pa.table({"item": pa.array({item for own in lists.values() for item in own}, pa.int64())}))
        items = items.select("item", "item_id")

        def titles(rows: Rows) -> dict[int, list[str]]:
            own: dict[int, list[str]] = {}
            pairs = rows.select("user", "item").joined(chosen, "user").distinct().joined(items, "item")
            for user, name in _pairs(pairs.select("user", "item_id").table()):
                own.setdefault(user, []).append(name)
            return {user: sorted(names)[:_SHOWN] for user, names in own.items()}

        had, held_out = titles(seen), titles(truth)
        names = dict(_pairs(items.joined(listed, "item").table()))
        return [
            {
                "user": name,
                "had": had.get(user, []),
                "recommended": [names[item] for item in lists[user]],
                "held_out": held_out.get(user, []),
            }
            for user, name in sorted(_pairs(users.select("user", "user_id").joined(chosen, "user").table()))
        ]

    frames = narrowed(dataset.users, "user", "user_id"), narrowed(dataset.items, "item", "item_id")
    return carry_out("examples", plan, *frames, narrowed(seen, "user", "item"), narrowed(truth, "user", "item"))


def _pairs(table: pa.Table) -> Iterator[tuple[int, str]]:
    """A column of integers beside one of ids, as text."""
    integers, ids = (table.column(at).to_pylist() for at in range(2))
    return zip(integers, map(str, ids), strict=True)


def _titles(settings: ItemTitles, lake: Lake) -> DataFrame:
    """(item_id, title), both text and neither null."""
    source = read_columns(lake.spark, settings.source, [settings.id, settings.title])
    pairs = {"item_id": settings.id, "title": settings.title}
    return source.select(*[column(name).cast("string").alias(own) for own, name in pairs.items()]).dropna()


def _plot(calibrated: pa.Table) -> bytes:
    """Share of clicks over mean prediction, by bucket; on the diagonal, p means what it says."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 4), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="grey", linewidth=1)
    axis.plot(calibrated["predicted"], calibrated["clicked"], marker=".")
    axis.set(xlabel="predicted", ylabel="clicked", title=f"{sum(calibrated['rows'].to_pylist()):,} rows")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _title(settings: EvaluateSettings) -> str:
    if settings.protocol is None:
        return "none"
    protocol = settings.protocol.model_dump()
    kind = protocol.pop("kind")
    if protocol.get("exclude_seen"):
        del protocol["exclude_seen"]  # as ever
    return " ".join([kind, *(f"{key}={value}" for key, value in protocol.items())])
