"""Write the best k items of every user, under the ids of the log."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import tables
from sparkrec.config import IdSource, PrepareSettings, RecommendSettings, model_settings
from sparkrec.errors import ConfigError, InputError
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.data.ids import with_strangers
from sparkrec.spark.in_place import carry_out, count, holding
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import dense
from sparkrec.spark.model.serving import ANSWERS, following, follows_history
from sparkrec.spark.platform.before_spark_4 import try_cast
from sparkrec.spark.platform.digests import content_digest
from sparkrec.spark.platform.few import narrowed
from sparkrec.spark.platform.lake import Lake, Run
from sparkrec.spark.platform.sources import read_ids, read_source
from sparkrec.spark.retrieval.topk import best, topk
from sparkrec.spark.runner import Rows
from sparkrec.stages.planned import Planned
from sparkrec.stages.prepare import interactions_of, pin
from sparkrec.stages.running import once, stage
from sparkrec.stages.serving_context import ServingContext

log = logging.getLogger(__name__)

POPULARITY = "popularity"
"""What answers users whom neither the model nor their history does."""

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
        if not follows_history(model_settings(run.settings["model"])):
            raise ConfigError(
                f"fresh: model {run.reference} is a {run.settings['model']['kind']}, which knows what it was "
                f"trained on and no more. Use {following()}, or train it again."
            )
        prepared = lake.finished_run("prepare", pinned["dataset"])
        pinned["interactions"] = pin(lake, prepared.inputs["interactions"]["table"])
    for name in ("users", "candidates", "deny"):
        source: IdSource | None = getattr(settings, name)
        if source is not None:
            pinned[name] = _digest(lake, source)
    if settings.users is not None:  # its further columns are contexts
        pinned["users"]["columns"] = content_digest(read_source(lake.spark, settings.users.source))["digest"]
    return pinned


def open_run(settings: RecommendSettings, lake: Lake) -> Run:
    """The run of these settings."""
    pinned = inputs(settings, lake)
    return lake.open_run("recommend", pinned["model"].partition("@")[0], settings, pinned)


def plan(settings: RecommendSettings, lake: Lake) -> Planned:
    """What it would read and write."""
    return Planned.of(open_run(settings, lake), lake, [], [settings.table])


@stage("recommend")
@once(open_run, "recommendations of run")
def recommend(settings: RecommendSettings, lake: Lake, run: Run) -> Run:
    """Top k of each user into a table, in one commit that is made at most once.

    A user whom the model was not fitted to is answered from what it did, where the model can; all others get the most
    popular items, marked `fallback`. The manifest tells how many were `answered` by the model, from their history, by a
    row that was folded in, and by popularity. InputError when k is larger than the catalogue, or no id of a list is
    known.
    """
    pinned = run.inputs
    trained = lake.finished_run("train", pinned["model"])
    dataset = Dataset.open(lake, pinned["dataset"])
    items = _items(settings, lake, dataset)
    people, events = narrowed(dataset.users, "user", "user_id"), dataset.observed(True)
    if settings.fresh:
        people, events = _fresh(lake, dataset, pinned["interactions"])
    seen = narrowed(events, "user", "item") if settings.exclude_seen else None
    with holding() as hold:
        users = hold(_users(settings, lake, people))
        asking = carry_out(
            "recommend", lambda rows: rows.where_present("user").select("user", "user_id").frame(), users
        )
        ask = ServingContext(settings, dataset, asking, events)
        served = ask.model(lake, trained)
        answered = served.users
        if settings.retrieve is None:
            lists = topk(served.model, settings.k, answered, exclude=seen, items=items)
        else:
            first = ask.model(lake, lake.finished_run("train", pinned["retrieve"]))
            answered = answered.join(first.users.select("user"), "user", "left_semi")
            n = min(settings.retrieve.n, dataset.items.count() if items is None else items.count())
            retrieved = topk(first.model, n, answered.select("user"), exclude=seen, items=items)
            lists = best(served.model, retrieved.select("user", "item"), settings.k)
        users = hold(carry_out("recommend", _answered, users, answered))
        rows, others = carry_out("recommend", _listed, users, lists)
        if others is not None:
            others = hold(others)
            popular = _popular(settings.k, dataset, others, seen, items)
            rows = rows.unionByName(popular.join(others, "user").withColumn("fallback", F.lit(True)))
        names = {"run": pa.scalar(run.id), "model": pa.scalar(trained.reference)}
        ids = narrowed(dataset.items, "item", "item_id")
        _write(lake, settings.table, run, carry_out("recommend", partial(_named, **names), rows, ids))
        written = lake.table(settings.table).where(F.col("run") == run.id)
        of_each = written.join(users.select("user_id", "by"), "user_id").groupBy("by")
        counted = of_each.agg(F.count_if(F.col("rank") == 1).alias("users"), F.count("*").alias("rows")).collect()
    n_users = {row["by"]: row["users"] for row in counted}
    answers = {by: n_users.get(by, 0) for by in (*ANSWERS, POPULARITY)}
    total = sum(row["rows"] for row in counted)
    run = run.publish(table=lake.place(settings.table), users=sum(answers.values()), answered_by=answers, rows=total)
    told = ", ".join(f"{n} by {by}" for by, n in answers.items() if n)
    log.info("%s rows for %s users (%s) in %s", total, sum(answers.values()), told, run.path)
    return run


def _answered(users: Rows, answered: Rows) -> DataFrame:
    """(user, user_id, by) of all who ask."""
    users = users.select("user", "user_id").joined(answered.select("user", "by"), "user", every=True)
    return users.coalesced(by=pa.scalar(POPULARITY)).frame()


def _listed(users: Rows, lists: Rows) -> tuple[DataFrame, DataFrame | None]:
    """The lists of those whom the model answers, beside who they are; and all others, if there are any."""
    others = users.where_is("by", POPULARITY)
    rows = lists.joined(users.where_is_not("by", POPULARITY), "user").filled(fallback=pa.scalar(False))
    return rows.frame(), others.coalesced(user=pa.scalar(ANYONE, pa.int64())).frame() if others.count() else None


def _named(rows: Rows, items: Rows, **values: pa.Scalar) -> DataFrame:
    """Rows with the ids of their items, and what is the same in all."""
    return rows.joined(items.select("item", "item_id"), "item").filled(**values).frame()


def _fresh(lake: Lake, dataset: Dataset, pinned: dict[str, Any]) -> tuple[DataFrame, DataFrame]:
    """The interactions as they are now, of items that the dataset knows: (user, user_id) of its users and of those who
    have come since, and (user, item, value, confidence, timestamp) what they did."""
    prepared = PrepareSettings.model_validate({**dataset.manifest["settings"], "lake": lake.root})
    events = interactions_of(prepared, lake, pinned).join(dataset.items.select("item", "item_id"), "item_id")
    people = with_strangers(dataset.users, events)
    columns = "user", "item", "value", "confidence", "timestamp"
    return people, events.join(people, "user_id").select(*columns)


def _digest(lake: Lake, source: IdSource) -> dict[str, Any]:
    """Content of a list, whatever its order: another list is another run."""
    found = content_digest(read_ids(lake.spark, source))
    if not found["rows"]:
        raise InputError(f"{source.source.label} holds no id in column {source.column!r}. Check the list.")
    return found


def _matched(lake: Lake, source: IdSource, ids: DataFrame, side: str) -> DataFrame:
    """The ids of a list, `<side>_id`, as the dataset types them, with its integers; null where unknown."""
    name = f"{side}_id"
    kind = ids.schema[name].dataType
    listed = read_ids(lake.spark, source).select("id", try_cast(F.col("id"), kind).alias(name))
    alien = listed.where(F.col(name).isNull()).head()
    if alien is not None:
        raise InputError(
            f"{source.source.label} has {side} id {alien['id']!r}, but the ids of the dataset are "
            f"{kind.simpleString()}. Correct the list."
        )
    return listed.select(name).distinct().join(ids.select(side, name), name, "left")


def _users(settings: RecommendSettings, lake: Lake, people: DataFrame) -> DataFrame:
    return people if settings.users is None else _matched(lake, settings.users, people, "user")


def _items(settings: RecommendSettings, lake: Lake, dataset: Dataset) -> DataFrame | None:
    """Items that may be recommended; None for all."""
    catalogue = count("recommend", narrowed(dataset.items, "item"))
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
                f"none of the {unknown:,} item ids of {source.source.label} ({name}) is in {dataset.reference}. Is it "
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


def _write(lake: Lake, table: str, run: Run, rows: DataFrame) -> None:
    columns = tables.RECOMMENDATIONS.names
    if lake.has_table(table):
        old = lake.table(table).schema
        if missing := [name for name in columns if name not in old.names]:
            raise InputError(
                f"table {lake.place(table)} has no column {missing[0]!r}: it is not one of recommendations. It has "
                f"{', '.join(old.names)}. Name another table, or one that is not there yet."
            )
        for name in ("user_id", "item_id"):
            found, expected = rows.schema[name].dataType.simpleString(), old[name].dataType.simpleString()
            if found != expected:
                raise InputError(
                    f"{name} is {found} in this dataset, but {expected} in table {lake.place(table)}. "
                    "Keep the lists of datasets whose ids differ in type in tables of their own."
                )
    lake.append(table, rows.select(*columns), f"recommend:{run.id}", tables.RECOMMENDATIONS)
