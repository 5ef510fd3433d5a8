"""From a pinned interactions table to a dataset: integer ids, values, splits, a manifest of counts."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from sparkrec import tables
from sparkrec.config import GivenSplit, PrepareSettings
from sparkrec.errors import PrepareError
from sparkrec.spark.data.features import columns_of, encode, fit, joined, save, versions, warn_of_extremes
from sparkrec.spark.data.ids import IdTable, assign
from sparkrec.spark.data.interactions import (
    PAIR,
    candidates,
    check_columns,
    check_timestamps,
    core,
    deduplicate,
    first_pair,
    to_feedback,
    type_of,
    weigh,
)
from sparkrec.spark.data.sequences import sequences
from sparkrec.spark.data.splits import PARTS, check, needs_time, split
from sparkrec.spark.in_place import write
from sparkrec.spark.platform.digests import source_digest
from sparkrec.spark.platform.few import from_files, narrowed
from sparkrec.spark.platform.lake import Lake, Run
from sparkrec.spark.platform.sources import column, resolved
from sparkrec.stages.planned import Planned
from sparkrec.stages.running import once, stage

log = logging.getLogger(__name__)

_QUANTILES = {"min": 0.0, "5%": 0.05, "25%": 0.25, "50%": 0.5, "75%": 0.75, "95%": 0.95, "max": 1.0}


def inputs(settings: PrepareSettings, lake: Lake) -> dict[str, Any]:
    """The tables that prepare would read, each pinned to a version, and digests of those of features."""
    pinned = {"interactions": pin(lake, settings.interactions, settings.version)}
    if isinstance(settings.split, GivenSplit):
        pinned["test"] = pin(lake, settings.split.test)
        if settings.split.validation_table:
            pinned["validation"] = pin(lake, settings.split.validation_table)
    for side, features in settings.features.sides.items() if settings.features else ():
        setting = f"features.{side}"
        pinned[setting] = source_digest(lake.spark, setting, features.source, columns_of(features))
    return pinned


def pin(lake: Lake, table: str, version: int | None = None) -> dict[str, Any]:
    if version is None:
        version = lake.table_version(table)
    else:
        lake.table(table, version)  # refuses what cannot be read
    return {"table": table, "id": lake.table_id(table), "version": version}


def open_run(settings: PrepareSettings, lake: Lake) -> Run:
    """The run of these settings."""
    return lake.open_run("prepare", settings.dataset, settings, inputs(settings, lake))


def plan(settings: PrepareSettings, lake: Lake) -> Planned:
    """What it would read and write."""
    run = open_run(settings, lake)
    files = [*PARTS, "users", "items"]
    if isinstance(settings.split, GivenSplit) and settings.split.candidates:
        files.append(tables.CANDIDATES.name)
    if settings.sequences is not None:
        files.append(tables.SEQUENCES.name)
    if settings.features is not None:
        features = (tables.FIELDS, tables.VOCABULARY, tables.USER_FEATURES, tables.ITEM_FEATURES)
        files += [each.name for each in features]
    return Planned.of(run, lake, files, id_tables(settings.interactions))


def id_tables(interactions: str) -> list[str]:
    """The Delta tables of the integer ids of a table of interactions."""
    return [tables.named(table, interactions) for table in (tables.USERS, tables.ITEMS)]


@stage("prepare")
@once(open_run, "dataset")
def prepare(settings: PrepareSettings, lake: Lake, run: Run) -> Run:
    """Make one dataset and publish it; tables and columns as in `sparkrec.tables`.

    Event weights come first, then duplicates, feedback, k-core, split. The test table of a given split goes
    through the first three on its own. Raises PrepareError when a policy does not fit the data, or nothing is
    left.
    """
    with ExitStack() as held:

        def hold(frame: DataFrame) -> DataFrame:
            """Keep what several jobs read until the stage ends."""
            held.callback(frame.persist().unpersist)
            return frame

        parts, to_rank = _parts(settings, lake, run)
        parts = hold(parts)
        found = _check(settings, lake, run, parts)

        raw_users, raw_items = parts.select("user_id"), parts.select("item_id")
        if to_rank is not None:
            raw_items = raw_items.union(to_rank.select("item_id"))
        names = id_tables(settings.interactions)
        with ThreadPoolExecutor() as pool:  # each waits for Delta most of the time
            users, items = pool.map(assign, (lake, lake), names, (raw_users, raw_items), ("user", "item"))

        columns = ["user", "item", "value", "confidence", "timestamp"]
        codes: dict[str, Any] = {}
        if settings.features is not None:
            known = hold(joined(parts, settings.features, lake.spark))
            fitted = fit(known.where("part = 'train'"), settings.features)
            warn_of_extremes(known, fitted.of("context"), "the interactions")
            parts = encode(known, fitted.of("user", "context"), "the interactions")
            columns += ["rows", "weights"]
            save(fitted, run.path)
            codes = {"fields": {"digest": fitted.digest, "layout": fitted.layout.to_json()}}
        indexed = hold(_indexed(parts, users, items).select(*columns, "part"))
        for part in PARTS:
            _write(indexed.where(F.col("part") == part).select(columns), run, part)
        if settings.sequences is not None:
            observed = indexed.where("part = 'train'").select("user", "item", "timestamp")
            _write(sequences(observed, settings.sequences), run, "sequences")
        catalogue = indexed.select("item", "part")
        if to_rank is not None:
            _write(_indexed(to_rank, users, items).select("user", "item"), run, "candidates")
            written = from_files(lake.spark, f"{run.path}/candidates")
            catalogue = catalogue.union(written.select("item", F.lit("candidates")))
        user_rows, item_rows = hold(_rows_by_part(indexed, "user")), hold(_rows_by_part(catalogue, "item"))
        _write(user_rows.join(users.frame, "user").select("user", "user_id", "train_count"), run, "users")
        _write(item_rows.join(items.frame, "item").select("item", "item_id", "train_count"), run, "items")

        if settings.features is not None:
            for side in ("user", "item"):
                ids = narrowed(from_files(lake.spark, f"{run.path}/{side}s"), side, f"{side}_id")
                _write(versions(ids, settings.features, side, fitted), run, f"{side}_features")

        facts = _facts(user_rows, item_rows)
        log.info("dataset %s: %s", run.reference, facts["counts"])
        return run.publish(ids={"users": users.pin, "items": items.pin}, found=found, **codes, **facts)


def _parts(settings: PrepareSettings, lake: Lake, run: Run) -> tuple[DataFrame, DataFrame | None]:
    """user_id, item_id, value, confidence, timestamp, part; and the pairs to rank, if they are given."""
    interactions = interactions_of(settings, lake, run.inputs["interactions"])
    kept = core(interactions, settings.min_user_interactions, settings.min_item_interactions)
    parts = split(kept, settings.split)
    if not isinstance(settings.split, GivenSplit):
        return parts, None

    for part, table in (("validation", settings.split.validation_table), ("test", settings.split.test)):
        if table is not None:
            held_out = _held_out(settings, lake, run, part, interactions)
            parts = parts.unionByName(held_out.withColumn("part", F.lit(part)))
    if settings.split.candidates is None:
        return parts, None
    listed = _events(settings, lake, run.inputs["test"])
    ranked = listed.join(held_out.select(*PAIR).distinct(), PAIR, "left_semi")
    return parts, candidates(ranked, settings.split.test, settings.split.candidates)


def interactions_of(settings: PrepareSettings, lake: Lake, pin: dict[str, Any]) -> DataFrame:
    """user_id, item_id, value, confidence, timestamp: a table of interactions, as a dataset takes them."""
    return to_feedback(deduplicate(_events(settings, lake, pin), settings.dedup), settings.feedback)


def _held_out(settings: PrepareSettings, lake: Lake, run: Run, part: str, events: DataFrame) -> DataFrame:
    """The interactions of another table, whose ids are of the types that `events` have."""
    pinned = run.inputs[part]
    found = interactions_of(settings, lake, pinned)
    for name in PAIR:
        if type_of(found, name) != type_of(events, name):
            raise PrepareError(
                f"{name} is {type_of(found, name)} in {pinned['table']!r}, but {type_of(events, name)} in "
                f"{settings.interactions!r}. Ingest both with one id_type."
            )
    return found


def _events(settings: PrepareSettings, lake: Lake, pin: dict[str, Any]) -> DataFrame:
    """The rows of an ingested table, weighed, once they are known to be what the policies need; what features read of
    them is in a struct `context`."""
    name = pin["table"]
    events = lake.table(name, pin["version"])
    check_columns(events, name)
    if settings.features is not None and settings.features.context:
        wanted = list(dict.fromkeys(field.column for field in settings.features.context))
        events = resolved(events, wanted, f"features.context: table {name!r}")
        events = events.withColumn("context", F.struct(*[column(each).alias(each) for each in wanted]))
    if settings.event_weights is not None:
        events = weigh(events, settings.event_weights)
    needed_by = ["dedup 'last'"] if settings.dedup == "last" else []
    if settings.features is not None and any(
        side is not None and side.timestamp for side in (settings.features.users, settings.features.items)
    ):
        needed_by.append("features with a timestamp")
    if settings.sequences is not None and settings.sequences.ordered:
        needed_by.append("sequences")
    if needs_time(settings.split):
        needed_by.append(f"split {settings.split.kind!r}")
    if needed_by:
        check_timestamps(events, name, needed_by)
    return events


def _check(settings: PrepareSettings, lake: Lake, run: Run, parts: DataFrame) -> int:
    """Number of rows of the interactions table, once the parts are known to be a dataset."""
    pin = run.inputs["interactions"]
    found = lake.table(pin["table"], pin["version"]).count()
    finite = (F.abs("value") < float("inf")) & (F.abs("confidence") < float("inf"))
    undefined = ~F.coalesce(finite, F.lit(False))
    by_part = parts.groupBy("part").agg(F.count("*"), F.count_if(undefined), first_pair(undefined)).collect()
    rows = dict.fromkeys(PARTS, 0) | {part: count for part, count, _, _ in by_part}
    total = sum(rows.values())
    given = sum(rows[part] for part in run.inputs if part in PARTS)
    if not found:
        raise PrepareError(f"table {pin['table']!r} has no rows at version {pin['version']}. Ingest some first.")
    if total == given:
        raise PrepareError(
            f"none of {found:,} rows of {pin['table']!r} is left after event_weights and feedback.threshold. "
            "Lower the threshold or raise a weight."
        )
    if unfit := sum(row[2] for row in by_part):
        user, item = min(row[3] for row in by_part if row[3] is not None)
        how = settings.feedback
        setting = f"scale {how.scale!r}" if how.kind == "explicit" else f"confidence {how.confidence!r}"
        least = "" if setting == "scale 'identity'" else " from 0 on"
        raise PrepareError(
            f"{how.kind} feedback with {setting} takes ratings{least} that fit 32 bits, but {unfit:,} of "
            f"{total:,} do not (first: user {user!r}, item {item!r}). Drop them at ingest, by event_weights "
            "or by feedback.threshold, or choose another."
        )
    check(rows, parts, settings.split)
    if not rows["validation"]:
        log.info("dataset %s has no validation split", run.reference)
    return found


def _indexed(frame: DataFrame, users: IdTable, items: IdTable) -> DataFrame:
    return frame.join(users.frame, "user_id").join(items.frame, "item_id")


def _write(frame: DataFrame, run: Run, table: str) -> None:
    write(frame, f"{run.path}/{table}")
    log.info("dataset %s: %s written", run.reference, table)


def _rows_by_part(frame: DataFrame, side: str) -> DataFrame:
    """How many rows each user or item has in each part: `side`, train_count, validation_count, test_count."""
    counts = [F.count_if(F.col("part") == part).alias(f"{part}_count") for part in PARTS]
    return frame.groupBy(side).agg(*counts)


def _facts(user_rows: DataFrame, item_rows: DataFrame) -> dict[str, Any]:
    """What the manifest tells: counts overall and in each part, and how many interactions a user has."""

    def count(rows: DataFrame, *more: Column) -> Row:
        present = [F.count_if(F.col(f"{part}_count") > 0).alias(f"{part}_present") for part in PARTS]
        totals = [F.sum(f"{part}_count").alias(part) for part in PARTS]
        return rows.agg(F.count("*").alias("all"), *present, *totals, *more).collect()[0]

    each = sum((F.col(f"{part}_count") for part in PARTS), F.lit(0))
    quantiles = F.percentile(each, F.lit(list(_QUANTILES.values()))).alias("quantiles")
    users, items = count(user_rows, quantiles), count(item_rows)
    rows = sum(users[part] for part in PARTS)
    counts: dict[str, Any] = {"rows": rows, "users": users["all"], "items": items["all"]}
    counts["density"] = rows / (users["all"] * items["all"])
    for part in PARTS:
        present = f"{part}_present"
        counts[part] = {"rows": users[part], "users": users[present], "items": items[present]}
    return {"counts": counts, "interactions_per_user": dict(zip(_QUANTILES, users["quantiles"], strict=True))}
