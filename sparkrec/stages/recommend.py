"""Write the best k items of every user, under the ids of the log."""

from __future__ import annotations

import logging
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import tables
from sparkrec.config import (
    IdSource,
    MarkovSettings,
    PrepareSettings,
    RecommendSettings,
    SequenceNetworkSettings,
    model_settings,
)
from sparkrec.errors import ConfigError, InputError
from sparkrec.spark.dataset import Dataset
from sparkrec.spark.lake import Lake, Run
from sparkrec.spark.model import Model
from sparkrec.spark.retrieval import best, topk
from sparkrec.spark.rows import dense
from sparkrec.spark.sources import read_ids
from sparkrec.stages.asking import Asking
from sparkrec.stages.planned import Planned
from sparkrec.stages.prepare import interactions_of, pin

log = logging.getLogger(__name__)

ANYONE = -1
"""Stands for all users whom the dataset does not know: they get the same list."""


def inputs(settings: RecommendSettings, lake: Lake) -> dict[str, Any]:
    """The model and its dataset, pinned, and a digest of each list of ids."""
    run = lake.finished_run("train", settings.model)
    pinned = {"model": run.reference, "dataset": run.inputs["dataset"]}
    if settings.retrieve is not None:
        first = lake.finished_run("train", settings.retrieve.model)
        if first.inputs["dataset"] != run.inputs["dataset"]:
            raise InputError(
                f"retrieve: model {first.reference} was fitted to {first.inputs['dataset']}, but {run.reference} to "
                f"{run.inputs['dataset']}. Train both on one dataset."
            )
        pinned["retrieve"] = first.reference
    if settings.fresh:
        prepared = lake.finished_run("prepare", pinned["dataset"])
        pinned["interactions"] = pin(lake, prepared.inputs["interactions"]["table"])
    for name in ("users", "candidates", "deny"):
        source: IdSource | None = getattr(settings, name)
        if source is not None:
            pinned[name] = _digest(lake, source)
    return pinned


def open_run(settings: RecommendSettings, lake: Lake) -> Run:
    """The run of these settings."""
    pinned = inputs(settings, lake)
    return lake.open_run("recommend", pinned["model"].partition("@")[0], settings, pinned)


def plan(settings: RecommendSettings, lake: Lake) -> Planned:
    """What it would read and write."""
    return Planned.of(open_run(settings, lake), lake, [], [tables.RECOMMENDATIONS.name])


def recommend(settings: RecommendSettings, lake: Lake) -> Run:
    """Top k of each user into the table `recommendations`, in one commit that is made at most once.

    Users whom the dataset does not know, or without an interaction that the model was fitted to, get the most popular
    items, marked `fallback`. InputError when k is larger than the catalogue, or no id of a list is known.
    """
    run = open_run(settings, lake)
    pinned = run.inputs
    trained = lake.finished_run("train", pinned["model"])
    if run.finished:
        log.info("recommendations of run %s are there already", run.reference)
        return run
    dataset = Dataset.open(lake, pinned["dataset"])
    items = _items(settings, lake, dataset)
    events = _fresh(lake, trained, dataset, pinned["interactions"]) if settings.fresh else dataset.observed(True)
    seen = events.select("user", "item") if settings.exclude_seen else None
    fitted = dataset.observed(bool(trained.settings["include_validation"])).select("user").distinct()
    users = _users(settings, lake, dataset).join(fitted.withColumn("fitted", F.lit(True)), "user", "left").persist()
    try:
        known = users.where("fitted").select("user", "user_id")
        ask = Asking(settings, dataset, known, events)
        if settings.retrieve is None:
            lists = topk(ask.model(lake, trained), settings.k, known.select("user"), exclude=seen, items=items)
        else:
            quick = lake.finished_run("train", pinned["retrieve"])
            n = min(settings.retrieve.n, dataset.items.count() if items is None else items.count())
            retrieved = topk(ask.model(lake, quick), n, known.select("user"), exclude=seen, items=items)
            lists = best(ask.model(lake, trained), retrieved.select("user", "item"), settings.k)
        rows = lists.join(known, "user").withColumn("fallback", F.lit(False))
        others = users.where("fitted IS NULL").select(F.coalesce("user", F.lit(ANYONE)).alias("user"), "user_id")
        if not others.isEmpty():
            popular = _popular(settings.k, dataset, others, seen, items)
            rows = rows.unionByName(popular.join(others, "user").withColumn("fallback", F.lit(True)))
        rows = rows.join(dataset.items.select("item", "item_id"), "item")
        _write(lake, run, rows.withColumns({"run": F.lit(run.id), "model": F.lit(trained.reference)}))
    finally:
        users.unpersist()
    written = lake.table(tables.RECOMMENDATIONS.name).where(F.col("run") == run.id)
    first = F.col("rank") == 1
    facts = written.agg(
        F.count("*").alias("rows"),
        F.count_if(first).alias("users"),
        F.count_if(first & F.col("fallback")).alias("fallback"),
    ).collect()[0]
    run = run.publish(
        table=lake.path(tables.RECOMMENDATIONS.name),
        users=facts.users,
        fallback_users=facts.fallback,
        rows=facts.rows,
    )
    log.info("%s rows for %s users (%s by popularity) in %s", facts.rows, facts.users, facts.fallback, run.path)
    return run


def _fresh(lake: Lake, trained: Run, dataset: Dataset, pinned: dict[str, Any]) -> DataFrame:
    """(user, item, timestamp): the interactions as they are now, of the users and items that the dataset knows."""
    if not isinstance(model_settings(trained.settings["model"]), SequenceNetworkSettings | MarkovSettings):
        raise ConfigError(
            f"fresh: model {trained.reference} is a {trained.settings['model']['kind']}, which knows what it was "
            "trained on and no more. Use a model of sequences, or train it again."
        )
    prepared = PrepareSettings.model_validate({**dataset.manifest["settings"], "lake": lake.root})
    events = interactions_of(prepared, lake, pinned)
    ids = dataset.users.select("user", "user_id"), dataset.items.select("item", "item_id")
    return events.join(ids[0], "user_id").join(ids[1], "item_id").select("user", "item", "timestamp")


def _digest(lake: Lake, source: IdSource) -> dict[str, Any]:
    """Content of a list, whatever its order: another list is another run."""
    ids = read_ids(lake.spark, source)
    total = F.sum(F.xxhash64(F.col("id").cast("string")).cast("decimal(38,0)"))
    rows, digest = ids.agg(F.count("*"), total).collect()[0]
    if not rows:
        raise InputError(f"{source.source.path} holds no id in column {source.column!r}. Check the list.")
    return {"ids": rows, "digest": str(digest)}


def _matched(lake: Lake, source: IdSource, ids: DataFrame, side: str) -> DataFrame:
    """The ids of a list, `<side>_id`, as the dataset types them, with its integers; null where unknown."""
    name = f"{side}_id"
    kind = ids.schema[name].dataType
    listed = read_ids(lake.spark, source).select("id", F.col("id").try_cast(kind).alias(name))
    alien = listed.where(F.col(name).isNull()).head()
    if alien is not None:
        raise InputError(
            f"{source.source.path} has {side} id {alien['id']!r}, but the ids of the dataset are "
            f"{kind.simpleString()}. Correct the list."
        )
    return listed.select(name).distinct().join(ids.select(side, name), name, "left")


def _users(settings: RecommendSettings, lake: Lake, dataset: Dataset) -> DataFrame:
    if settings.users is None:
        return dataset.users.select("user", "user_id")
    return _matched(lake, settings.users, dataset.users, "user")


def _items(settings: RecommendSettings, lake: Lake, dataset: Dataset) -> DataFrame | None:
    """Items that may be recommended; None for all."""
    catalogue = dataset.items.count()
    if settings.k > catalogue:
        raise InputError(
            f"k is {settings.k:,}, but the catalogue of {dataset.reference} has {catalogue:,} items. "
            "Set k to at most that."
        )
    allowed = dataset.items.select("item")
    for name, how in (("candidates", "left_semi"), ("deny", "left_anti")):
        source: IdSource | None = getattr(settings, name)
        if source is None:
            continue
        listed = _matched(lake, source, dataset.items, "item")
        unknown, known = listed.agg(F.count_if(F.col("item").isNull()), F.count("item")).collect()[0]
        if not known:
            raise InputError(
                f"none of the {unknown:,} item ids of {source.source.path} ({name}) is in {dataset.reference}. Is it "
                "the list of another dataset, or another column?"
            )
        if unknown:
            log.warning("%s: %s of %s item ids are not in %s", name, unknown, unknown + known, dataset.reference)
        allowed = allowed.join(listed.select("item"), "item", how)
    if settings.candidates is None and settings.deny is None:
        return None
    if allowed.isEmpty():
        raise InputError("candidates and deny together leave no item to recommend. Shorten the deny list.")
    return allowed


def _popular(k: int, dataset: Dataset, users: DataFrame, seen: DataFrame | None, items: DataFrame | None) -> DataFrame:
    """The items with most train interactions, for each of `users`, without what the user has seen."""
    users = users.select("user").distinct()
    counted = dataset.items if items is None else dataset.items.join(items, "item")
    longest = 0
    if seen is not None:
        seen = seen.join(users, "user", "left_semi")
        longest = seen.groupBy("user").count().agg(F.max("count")).collect()[0][0] or 0
    # No user's list reaches further down than this.
    best = counted.orderBy(F.desc("train_count"), "item").limit(k + longest)
    popularity = Model(dense(users, "user", 1.0), dense(best, "item", F.col("train_count")), 1, "dense", "dense")
    return topk(popularity, k, exclude=seen)


def _write(lake: Lake, run: Run, rows: DataFrame) -> None:
    table = tables.RECOMMENDATIONS
    columns = [column.split()[0] for column in table.columns.split(", ")]
    if lake.has_table(table.name):
        old = lake.table(table.name).schema
        for name in ("user_id", "item_id"):
            found, expected = rows.schema[name].dataType.simpleString(), old[name].dataType.simpleString()
            if found != expected:
                raise InputError(
                    f"{name} is {found} in this dataset, but {expected} in table {table.name!r} of {lake.root}. "
                    "Keep datasets whose ids differ in type in lakes of their own."
                )
    lake.append(table.name, rows.select(*columns), f"recommend:{run.id}", table.partition_by)
