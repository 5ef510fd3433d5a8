"""From lists that were made to lists that are served: checked, then swapped in one commit."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import tables
from sparkrec.config import ListChecks
from sparkrec.errors import InputError, Refused
from sparkrec.spark.in_place import carry_out, computed
from sparkrec.spark.platform.lake import Lake, Run
from sparkrec.spark.runner import Rows
from sparkrec.stages.retraining.distributions import overlap

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lists:
    """Lists that were made, and those that are served now."""

    run: Run
    rows: DataFrame
    """(user_id, item_id, rank, score, fallback)"""
    served: DataFrame | None
    """(user_id, item_id); None: none are."""

    @classmethod
    def of(cls, lake: Lake, run: Run, served: str) -> Lists:
        """Those of a run of `recommend`, to be served from a table, which need not be there. Raises InputError where
        they are gone."""
        rows = lists_of(lake, run).select("user_id", "item_id", "rank", "score", "fallback")
        before = None
        if lake.has_table(served):
            before = computed("lists", lake.table(served).select("user_id", "item_id"))
        return cls(run, computed("lists", rows), before)

    @property
    def k(self) -> int:
        return int(self.run.settings["k"])


def lists_of(lake: Lake, run: Run) -> DataFrame:
    """The rows that a run of `recommend` wrote. Raises InputError where they are gone."""
    rows = lake.table(run.settings["table"]).where(F.col("run") == run.id)
    if rows.isEmpty():
        raise InputError(f"the lists of {run.reference} are no longer in table {run.settings['table']}.")
    return rows


def check_lists(settings: ListChecks, lists: Lists) -> dict[str, float]:
    """What is known of lists, once they are fit to be served. Raises Refused with all that is wrong."""

    def plan(rows: Rows, served: Rows | None) -> tuple[dict[str, int], int, float | None]:
        before, shared = 0, None
        if served is not None:
            before = served.select("user_id").distinct().count()
            shared = overlap(served, rows, "user_id", "item_id")
        return _faults(rows, lists.k), before, shared

    found, before, shared = carry_out("lists", plan, lists.rows, lists.served)
    users = found["users"]
    full = found["full"] / users
    told = {"lists_users": float(users), "lists_full": full}
    wrong = [
        f"{found[name]:,} {what}"
        for name, what in (
            ("doubled", "users have an item twice"),
            ("with_holes", "users have lists with holes"),
            ("unscored", "items have no finite score"),
        )
        if found[name]
    ]
    if full < settings.min_full:
        wrong.append(f"{full:.1%} of users have {lists.k} items (lists.min_full: {settings.min_full:.1%})")
    if users < settings.min_users * before:
        wrong.append(f"{users:,} users, of {before:,} now served (lists.min_users: {settings.min_users:.1%})")
    if shared is not None:
        told["lists_overlap"] = shared
        if settings.min_overlap is not None and shared < settings.min_overlap:
            wrong.append(f"{shared:.1%} of what is served is in them (lists.min_overlap: {settings.min_overlap:.1%})")
    if wrong:
        raise Refused(f"the lists of {lists.run.reference} are not served: {'; '.join(wrong)}.")
    return told


def _faults(lists: Rows, k: int) -> dict[str, int]:
    """How many users there are, how many have k items, an item twice or ranks with holes; and scores that are none."""
    items = lists.select("user_id", "item_id").distinct().counted("user_id").named("user_id", "items")
    last = lists.select("user_id", last="rank").greatest("user_id")
    of_users = lists.counted("user_id").joined(items, "user_id").joined(last, "user_id")
    found = of_users.counted("n", "items", "last").named("n", "items", "last", "users").table()

    def users(which: object) -> int:
        return int(pc.sum(found.filter(which)["users"]).as_py() or 0)

    n, items_of, last_of = (found[name] for name in ("n", "items", "last"))
    return {
        "users": users(pc.is_valid(n)),
        "full": users(pc.greater_equal(n, k)),
        "doubled": users(pc.less(items_of, n)),
        "with_holes": users(pc.not_equal(last_of, n)),
        "unscored": lists.where_not_finite("score").count(),
    }


def serve(lake: Lake, run: Run, served: str, name: str, number: int) -> None:
    """Replace what is served by the lists of a run, in one commit, once for each change of the champion."""
    rows = lists_of(lake, run).select(*tables.RECOMMENDATIONS.names)
    lake.replace(served, rows, f"serve:{name}:{number}", tables.RECOMMENDATIONS)
    log.info("%s serves the lists of %s", lake.place(served), run.reference)
