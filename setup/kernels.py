"""Compile the kernels for the CPU at hand, which the first fit of each kind would do otherwise: ten seconds of some.

Each kind is fitted to a few made-up ratings, asked and measured, in place. What numba makes lies beside the sources.
"""

from pyspark.sql import SparkSession

from sparkrec import evaluate, fit
from sparkrec.config import SparkSettings, declaration, kinds
from sparkrec.spark.platform.few import SETTING
from sparkrec.spark.platform.session import open_session

NEEDS_TABLES = ("linear",)
"""Kinds that read attributes, which a frame does not have."""


def use(spark: SparkSession, kind: str) -> None:
    """Do with a kind what most do."""
    rows = [
        (user, (user % 2) * 6 + (user * 5 + n * 7) % 6, float(1 + user * n % 5), f"2024-01-{1 + n:02}")
        for user in range(30)
        for n in range(5 + user % 2)
    ]
    plays = spark.createDataFrame(rows, "user long, item long, stars double, at string")
    settings = {"training": {"epochs": 1}} if "training" in declaration(kind).settings.model_fields else {}
    for feedback, rating in (("implicit", None), ("explicit", "stars")):
        if feedback in declaration(kind).feedback:
            model = fit(plays, user="user", item="item", rating=rating, timestamp="at", kind=kind, **settings)
            lists = model.recommend(k=3)
            evaluate(lists, plays, k=[3]).count()


def main() -> None:
    spark = open_session(SparkSettings(master="local[2]", memory="1g", shuffle_partitions=2, conf={SETTING: "always"}))
    for kind in kinds():
        if kind not in NEEDS_TABLES:
            use(spark, kind)
    spark.stop()


if __name__ == "__main__":
    main()
