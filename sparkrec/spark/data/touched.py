"""Which users, or users and items, have other rows in one version of a table of interactions than in another."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.spark.platform.digests import row_digest
from sparkrec.spark.platform.sources import column


def touched(before: DataFrame, now: DataFrame, keys: Sequence[str], names: Sequence[str]) -> DataFrame:
    """(keys) of rows that come more often in one of two tables than in the other.

    keys   columns by which rows belong together
    names  columns that count; two rows are equal where all of them are

    Both have a column `batch`, and rows that stay keep theirs: so what moves is a few batches, as a rule, and rows of
    no others are put together by their keys.
    """
    sides = []
    for rows, sign in ((before, -1), (now, 1)):
        digest = row_digest(rows, list(names)).alias("digest")
        sides.append(rows.select(*map(column, keys), "batch", digest, F.lit(sign).cast("long").alias("sign")))
    rows = sides[0].unionAll(sides[1])
    batches = [row["batch"] for row in _moved(rows, ["batch"]).collect()]
    return _moved(rows.where(F.col("batch").isin(batches)), keys)


def _moved(rows: DataFrame, keys: Sequence[str]) -> DataFrame:
    """(keys) whose rows of both signs do not cancel out: by their number, and by sums of both halves of their digests,
    which fit a long of two thousand million rows."""
    halves = F.shiftright("digest", 32), F.col("digest").bitwiseAND(0xFFFFFFFF)
    sums = [F.sum(F.col("sign") * half) for half in (F.lit(1), *halves)]
    of_keys = rows.groupBy(*map(column, keys)).agg(*(each.alias(f"_{at}") for at, each in enumerate(sums)))
    return of_keys.where("_0 != 0 OR _1 != 0 OR _2 != 0").select(*map(column, keys))
