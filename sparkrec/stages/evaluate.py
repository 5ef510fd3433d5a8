"""Measure a model on a held-out split."""

from __future__ import annotations

import datetime as dt
import io
import logging
from importlib.util import find_spec
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import storage, tables
from sparkrec.config import EvaluateSettings, GivenCandidates, ItemTitles
from sparkrec.errors import EvaluateError
from sparkrec.spark.dataset import Dataset
from sparkrec.spark.explain import importance
from sparkrec.spark.lake import Lake, Run
from sparkrec.spark.measuring import metrics_of, overall
from sparkrec.spark.model import Model
from sparkrec.spark.ranking import Rankings
from sparkrec.spark.sources import read_source, require_columns

log = logging.getLogger(__name__)

_LISTS = ("had", "recommended", "held_out")
"""Of an example."""
_SHOWN = 10
"""Items of a user in an example."""


def inputs(settings: EvaluateSettings, lake: Lake) -> dict[str, Any]:
    """The model and its dataset, pinned, and a digest of the titles."""
    run = lake.finished_run("train", settings.model)
    pinned = {"model": run.reference, "dataset": run.inputs["dataset"]}
    if settings.titles is not None:
        digest = F.sum(F.xxhash64("item_id", "title").cast("decimal(38,0)")).cast("string")
        pinned["titles"] = _titles(settings.titles, lake).agg(digest).collect()[0][0]
    return pinned


def evaluate(settings: EvaluateSettings, lake: Lake) -> Run:
    """Every metric into the table `metrics` and a `metrics.json` beside the manifest; see `spark.measuring`.

    Full ranking leaves out what the user has in train and, when the test split is measured, in validation. Raises
    EvaluateError when the split is empty, the model was fitted to it, or the protocol lacks its candidates.
    """
    pinned = inputs(settings, lake)
    trained = lake.finished_run("train", pinned["model"])
    run = lake.open_run("evaluate", trained.name, settings, pinned)
    if run.finished:
        log.info("evaluation %s is there already", run.reference)
        return run
    dataset = Dataset.open(lake, pinned["dataset"])
    if settings.split == "validation":
        if trained.settings["include_validation"]:
            raise EvaluateError(
                f"model {trained.reference} was fitted to train and validation together: measured on validation it "
                "would look better than it is. Use split test, or train with include_validation: false."
            )
        if isinstance(settings.protocol, GivenCandidates):
            raise EvaluateError("candidates come with test rows only. Use split test, or protocol full or sampled.")
    model, truth = Model.load(lake, trained), dataset.test if settings.split == "test" else dataset.validation
    seen = dataset.observed(include_validation=settings.split == "test")
    rankings = None
    if settings.protocol is not None:
        rankings = Rankings(
            settings.protocol,
            settings.cutoffs,
            settings.metrics,
            bootstrap=settings.bootstrap,
            users_to=f"{run.path}/users" if settings.keep_users else None,
            examples=settings.examples,
        )
    found, calibrated, lists = metrics_of(
        model,
        dataset,
        truth,
        seen,
        rankings,
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
    lake.append(tables.METRICS.name, frame, transaction=f"metrics:{run.id}", new_columns=True)
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
    if settings.importance:
        report["importance"] = importance(model, dataset, truth)
    storage.write_json(f"{run.path}/metrics.json", {**about, **report})
    run = run.publish(metrics=overall(found), users=report["segments"]["all"]["users"])
    log.info("%s on %s: %s", trained.reference, settings.split, overall(found))
    return run


def _examples(lists: dict[int, list[int]], dataset: Dataset, seen: DataFrame, truth: DataFrame) -> list[dict[str, Any]]:
    """Of a few users: what they had, what is recommended, and what was held out, by the ids of the log."""
    items = dataset.items.select("item", F.col("item_id").cast("string"))
    users = dataset.users.select("user", F.col("user_id").cast("string")).where(F.col("user").isin([*lists])).collect()

    def titles(rows: DataFrame) -> dict[int, list[str]]:
        own = rows.where(F.col("user").isin([*lists])).select("user", "item").distinct().join(items, "item")
        return dict(own.groupBy("user").agg(F.slice(F.array_sort(F.collect_list("item_id")), 1, _SHOWN)).collect())

    had, held_out = titles(seen), titles(truth)
    names: dict[int, str] = dict(
        items.where(F.col("item").isin([item for own in lists.values() for item in own])).collect()
    )
    return [
        {
            "user": name,
            "had": had.get(user, []),
            "recommended": [names[item] for item in lists[user]],
            "held_out": held_out.get(user, []),
        }
        for user, name in sorted(users)
    ]


def _titles(settings: ItemTitles, lake: Lake) -> DataFrame:
    """(item_id, title), both text and neither null."""
    source = read_source(lake.spark, settings.source)
    require_columns(source, [settings.id, settings.title], settings.source.path)
    pairs = [source[settings.id].cast("string").alias("item_id"), source[settings.title].cast("string").alias("title")]
    return source.select(*pairs).dropna()


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
    return " ".join([kind, *(f"{key}={value}" for key, value in protocol.items())])
