"""How far a distribution has moved."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def divergence(old: DataFrame, new: DataFrame, key: str, count: str) -> float | None:
    """Of Jensen and Shannon, in bits, from 0 to 1: the mean of what each says of the mean of both (Lin 1991).

    old, new  (key, count): how often there is what; the key once in each
    None where one of them has nothing.
    """
    both = old.select(key, F.col(count).alias("old")).join(new.select(key, F.col(count).alias("new")), key, "full")
    both = both.select(*[F.coalesce(name, F.lit(0)).alias(name) for name in ("old", "new")])
    totals = both.agg(*[F.sum(name).alias(name) for name in ("old", "new")]).collect()[0]
    if not totals["old"] or not totals["new"]:
        return None
    p, q = (F.col(name) / totals[name] for name in ("old", "new"))
    middle = (p + q) / 2
    terms = [F.when(share > 0, share * F.log2(share / middle)).otherwise(0.0) / 2 for share in (p, q)]
    return float(both.agg(F.sum(terms[0] + terms[1])).collect()[0][0])
