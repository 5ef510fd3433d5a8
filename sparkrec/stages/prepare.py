"""From a pinned interactions table to a dataset: integer ids, values, splits, a manifest of counts."""

from __future__ import annotations

import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import tables
from sparkrec.config import ExplicitFeedback, GivenSplit, PrepareSettings
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
    to_feedback,
    type_of,
    weigh,
)
from sparkrec.spark.data.part_counts import facts, rows_by_part, times
from sparkrec.spark.data.sequences import sequences
from sparkrec.spark.data.splits import PARTS, check, dated, needs_time, split
from sparkrec.spark.in_place import carry_out, holding, write
from sparkrec.spark.platform.digests import source_digest
from sparkrec.spark.platform.few import from_files, narrowed
from sparkrec.spark.platform.lake import Lake, Run
from sparkrec.spark.platform.sources import column, resolved
from sparkrec.spark.runner import Rows
from sparkrec.stages.former import Former
from sparkrec.stages.former import find as find_former
from sparkrec.stages.planned import Planned
from sparkrec.stages.running import once, stage

log = logging.getLogger(__name__)


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
    through the first three on its own. Where a dataset was made before, and rows of it are as they would be made
    again, they are taken over. Raises PrepareError when a policy does not fit the data, or nothing is left.
    """
    former = find_former(settings, lake, run)
    with holding() as hold:
        rest = None if former is None else hold(former.rest(_known_ids(settings, lake)))
        parts, rest, to_rank = _parts(settings, lake, run, former, rest)
        parts = hold(carry_out("prepare", lambda rows: rows.kept().frame(), parts))
        found = _check(settings, lake, run, parts, rest)

        raw_users, raw_items = narrowed(parts, "user_id"), narrowed(parts, "item_id")
        if to_rank is not None:
            raw_items = parts.select("item_id").union(to_rank.select("item_id"))
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
        index = partial(_indexed, columns=[*columns, "part"])
        indexed, *of_parts = carry_out("prepare", index, parts, users.frame, items.frame, rest)
        if rest is None:  # else all but a few rows are held already
            indexed = hold(indexed)
        when = carry_out("prepare", times, narrowed(indexed, "part", "timestamp"))
        for part, rows in zip(PARTS, of_parts, strict=True):
            _write(rows, run, part)
        if settings.sequences is not None:
            _write(sequences(of_parts[0].select("user", "item", "timestamp"), settings.sequences), run, "sequences")
        catalogue = narrowed(indexed, "item", "part")
        if to_rank is not None:
            index = partial(_indexed, columns=["user", "item"])
            (listed,) = carry_out("prepare", index, to_rank, users.frame, items.frame, None)
            _write(listed, run, "candidates")
            written = from_files(lake.spark, f"{run.path}/candidates")
            catalogue = indexed.select("item", "part").union(written.select("item", F.lit("candidates")))
        told = _write_ids(run, indexed, catalogue, users, items)

        if settings.features is not None:
            for side in ("user", "item"):
                ids = narrowed(from_files(lake.spark, f"{run.path}/{side}s"), side, f"{side}_id")
                _write(versions(ids, settings.features, side, fitted), run, f"{side}_features")

        log.info("dataset %s: %s", run.reference, told["counts"])
        facts = {"found": found, "times": when, "taken_over": None if former is None else former.told}
        return run.publish(ids={"users": users.pin, "items": items.pin}, **facts, **codes, **told)


def _known_ids(settings: PrepareSettings, lake: Lake) -> dict[str, DataFrame]:
    """(<side>, <side>_id) that were given before, by side."""
    return dict(zip(("user", "item"), map(lake.table, id_tables(settings.interactions)), strict=True))


def _parts(
    settings: PrepareSettings, lake: Lake, run: Run, former: Former | None, rest: DataFrame | None
) -> tuple[DataFrame, DataFrame | None, DataFrame | None]:
    """user_id, item_id, value, confidence, timestamp, part; the same of the rest of a former dataset, which has
    integers instead of ids; and the pairs to rank, if they are given."""
    events = _events(settings, lake, run.inputs["interactions"], former)
    interactions = _interactions(settings, events)
    # No duplicate is later than what stays of it, so that events tell the latest sooner; a threshold may drop it.
    all_stay = isinstance(settings.feedback, ExplicitFeedback) or settings.feedback.threshold is None
    kept = core(interactions, settings.min_user_interactions, settings.min_item_interactions)
    cut = dated(settings.split, *((events if all_stay else interactions,) if rest is None else (interactions, rest)))
    parts = split(kept, cut)
    if rest is not None and cut != settings.split:  # a split that has moved
        rest = split(rest, cut)
    if not isinstance(settings.split, GivenSplit):
        return parts, rest, None

    for part, table in (("validation", settings.split.validation_table), ("test", settings.split.test)):
        if table is not None:
            held_out = _held_out(settings, lake, run, part, interactions)
            parts = parts.unionByName(held_out.withColumn("part", F.lit(part)))
    if settings.split.candidates is None:
        return parts, None, None
    listed = _events(settings, lake, run.inputs["test"])
    ranked = listed.join(held_out.select(*PAIR).distinct(), PAIR, "left_semi")
    return parts, None, candidates(ranked, settings.split.test, settings.split.candidates)


def interactions_of(settings: PrepareSettings, lake: Lake, pin: dict[str, Any]) -> DataFrame:
    """user_id, item_id, value, confidence, timestamp: a table of interactions, as a dataset takes them."""
    return _interactions(settings, _events(settings, lake, pin))


def _interactions(settings: PrepareSettings, events: DataFrame) -> DataFrame:
    return to_feedback(deduplicate(events, settings.dedup), settings.feedback)


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


def _events(settings: PrepareSettings, lake: Lake, pin: dict[str, Any], former: Former | None = None) -> DataFrame:
    """The rows of an ingested table, weighed, once they are known to be what the policies need; what features read of
    them is in a struct `context`. Those alone that have changed, if there is a former dataset."""
    name = pin["table"]
    events = lake.table(name, pin["version"])
    check_columns(events, name)
    if former is not None:
        events = former.only_touched(events)
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


def _check(settings: PrepareSettings, lake: Lake, run: Run, parts: DataFrame, rest: DataFrame | None) -> int:
    """Number of rows of the interactions table, once the parts are known to be a dataset."""
    pin = run.inputs["interactions"]
    found = lake.table(pin["table"], pin["version"]).count()

    def count(parts: Rows, rest: Rows | None) -> tuple[Counter[str], int, dict[str, Any]]:
        rows: Counter[str] = Counter(dict.fromkeys(PARTS, 0))
        for some in (parts, rest):
            counted = some.counted("part").table().to_pylist() if some is not None else []
            rows.update({row["part"]: row["n"] for row in counted})
        unfit = parts.where_not_finite("value", "confidence").select(*PAIR)
        n = unfit.count()
        return rows, n, next(unfit.sorted(*PAIR).each()) if n else {}

    rows, unfit, first = carry_out("prepare", count, parts, rest)
    total = sum(rows.values())
    given = sum(rows[part] for part in run.inputs if part in PARTS)
    if not found:
        raise PrepareError(f"table {pin['table']!r} has no rows at version {pin['version']}. Ingest some first.")
    if total == given:
        raise PrepareError(
            f"none of {found:,} rows of {pin['table']!r} is left after event_weights and feedback.threshold. "
            "Lower the threshold or raise a weight."
        )
    if unfit:
        user, item = first.values()
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


def _indexed(rows: Rows, users: Rows, items: Rows, rest: Rows | None, *, columns: list[str]) -> tuple[DataFrame, ...]:
    """Rows with integers instead of their ids, and the rest, which have them; if they have parts, then those of each
    part, without that column."""
    indexed = rows.joined(users, "user_id").joined(items, "item_id").select(*columns)
    if rest is not None:
        indexed = indexed.union(rest.select(*columns))
    if "part" not in columns:
        return (indexed.frame(),)
    if rest is None:  # else all but a few rows are kept already
        indexed = indexed.kept()
    others = [name for name in columns if name != "part"]
    return indexed.frame(), *(indexed.where_is("part", part).select(*others).frame() for part in PARTS)


def _write_ids(run: Run, indexed: DataFrame, catalogue: DataFrame, users: IdTable, items: IdTable) -> dict[str, Any]:
    """Write the users and items of a dataset: those of `indexed`, and of the `catalogue`. Returns its facts."""

    def plan(indexed: Rows, catalogue: Rows, users: Rows, items: Rows) -> dict[str, Any]:
        counts = rows_by_part(indexed, "user").kept(), rows_by_part(catalogue, "item").kept()
        for side, rows, ids in zip(("user", "item"), counts, (users, items), strict=True):
            named = rows.select(side, "train_count").joined(ids, side).select(side, f"{side}_id", "train_count")
            _write(named.frame(), run, f"{side}s")
        told = facts(*counts)
        for rows in counts:
            rows.release()
        return told

    return carry_out("prepare", plan, narrowed(indexed, "user", "part"), catalogue, users.frame, items.frame)


def _write(frame: DataFrame, run: Run, table: str) -> None:
    write(frame, f"{run.path}/{table}")
    log.info("dataset %s: %s written", run.reference, table)
