"""From lists that were made to lists that are served: checked, then swapped in one commit."""

from __future__ import annotations

import logging

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import tables
from sparkrec.config import ListChecks
from sparkrec.errors import InputError, Refused
from sparkrec.spark.platform.lake import Lake, Run

log = logging.getLogger(__name__)


def lists_of(lake: Lake, run: Run) -> DataFrame:
    """The rows that a run of `recommend` wrote. Raises InputError where they are gone."""
    rows = lake.table(run.settings["table"]).where(F.col("run") == run.id)
    if rows.isEmpty():
        raise InputError(f"the lists of {run.reference} are no longer in table {run.settings['table']}.")
    return rows


def check_lists(settings: ListChecks, lake: Lake, run: Run, served: str) -> dict[str, float]:
    """What is known of the lists of a run, once they are fit to be served.

    served  table of those that are served; it need not be there
    Raises Refused with all that is wrong.
    """
    k = int(run.settings["k"])
    lists = lists_of(lake, run)
    of_users = lists.groupBy("user_id").agg(
        F.count("*").alias("n"),
        F.count_distinct("item_id").alias("items"),
        F.max("rank").alias("last"),
        F.count_if(F.isnan("score") | F.col("score").isNull()).alias("unscored"),
    )
    found = of_users.agg(
        F.count("*").alias("users"),
        F.count_if(F.col("n") >= k).alias("full"),
        F.count_if(F.col("items") < F.col("n")).alias("doubled"),
        F.count_if(F.col("last") != F.col("n")).alias("with_holes"),
        F.sum("unscored").alias("unscored"),
    ).collect()[0]
    users = found["users"]
    told = {"lists_users": float(users), "lists_full": found["full"] / users}
    wrong = [
        f"{found[name]:,} {what}"
        for name, what in (
            ("doubled", "users have an item twice"),
            ("with_holes", "users have lists with holes"),
            ("unscored", "items have no score"),
        )
        if found[name]
    ]
    if told["lists_full"] < settings.min_full:
        wrong.append(f"{told['lists_full']:.1%} of users have {k} items (lists.min_full: {settings.min_full:.1%})")
    if lake.has_table(served):
        old = lake.table(served)
        before = old.select("user_id").distinct().count()
        if before and users < settings.min_users * before:
            wrong.append(f"{users:,} users, of {before:,} now served (lists.min_users: {settings.min_users:.1%})")
        told["lists_overlap"] = overlap(old, lists, "user_id", "item_id")
        if settings.min_overlap is not None and told["lists_overlap"] < settings.min_overlap:
            wrong.append(
                f"{told['lists_overlap']:.1%} of what is served is in them (lists.min_overlap: "
                f"{settings.min_overlap:.1%})"
            )
    if wrong:
        raise Refused(f"the lists of {run.reference} are not served: {'; '.join(wrong)}.")
    return told


def overlap(old: DataFrame, new: DataFrame, user: str, item: str) -> float:
    """Share of the items of old lists that are in the new ones, of users who have both; 1 where nobody has."""
    both = old.select(user, item).join(new.select(user).distinct(), user, "left_semi")
    marked = both.join(new.select(user, item, F.lit(1).alias("kept")).distinct(), [user, item], "left")
    share = marked.groupBy(user).agg((F.count("kept") / F.count("*")).alias("share")).agg(F.avg("share"))
    found = share.collect()[0][0]
    return 1.0 if found is None else float(found)


def serve(lake: Lake, run: Run, served: str, name: str, number: int) -> None:
    """Replace what is served by the lists of a run, in one commit, once for each change of the champion."""
    rows = lists_of(lake, run).select(*tables.RECOMMENDATIONS.names)
    lake.replace(served, rows, f"serve:{name}:{number}", tables.RECOMMENDATIONS)
    log.info("%s serves the lists of %s", lake.place(served), run.reference)
