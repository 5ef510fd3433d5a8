"""Ranking metrics: seconds for six metrics at five cutoffs, beside RecTools, Spark's RankingEvaluator, RePlay and ranx.

From two Parquet tables of rows, 100 recommendations and 20 relevant items of each user, in no order; reading and
grouping are part of it. Spark's evaluator knows four of the six metrics: it is timed on those. `sparkrec, lists` reads
a table with an array for each user; `spark_group` reads that and groups what is relevant in Spark, and does nothing
with them. `--quick` has fewer users, and ranx, as `sparkrec, few`, an eighth of them.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.measure import CORES, Given, Row, Treatment, best, measure, show
from bench.spark import session
from bench.training import PEERS
from sparkrec.errors import ConfigError

USERS, QUICK_USERS, ITEMS, LISTED, RELEVANT = 138_000, 50_000, 27_000, 100, 20
CUTOFFS = [1, 5, 10, 20, 50]
FEWER = 8
"""Times fewer users of what is slow, in a quick run."""


def compare(quick: bool, treatment: Treatment) -> dict[str, Any]:
    """Run all in turn and print a table."""
    if not PEERS.exists():
        raise ConfigError("bench metrics needs its peers: run `make bench-peers` first, in the project's folder")
    users = QUICK_USERS if quick else USERS
    with tempfile.TemporaryDirectory() as folder:
        lists, relevant = paths = _tables(folder, users)
        few = _tables(f"{folder}/few", users // FEWER) if quick else paths
        grouped = f"{folder}/grouped"
        measure(_group, lists, grouped, Given(0, 1, CORES))
        contestants = {
            "sparkrec": (ours, *paths, CUTOFFS),
            "rectools": (peers, "rectools", *paths, CUTOFFS),
            "replay": (peers, "replay", *paths, CUTOFFS),
            "spark": (_spark, *paths),
            **({"sparkrec, few": (ours, *few, CUTOFFS)} if quick else {}),
            "ranx": (peers, "ranx", *few, CUTOFFS),
            "sparkrec, lists": (ours, grouped, relevant, CUTOFFS),
            "spark_group": (_spark_group, grouped, relevant),
        }
        rows = {name: {"system": name, **best(treatment, [way])} for name, way in contestants.items()}
    title = f"{6 * len(CUTOFFS)} metrics of {users:,} users"
    show(title, [*rows.values()], ("system", "seconds", "ndcg@10"))
    seconds = {name: row["seconds"] for name, row in rows.items()}
    ratios = {f"metrics/{name}": seconds[name] / seconds["sparkrec"] for name in ("rectools", "spark", "replay")}
    ratios["metrics/ranx"] = seconds["ranx"] / seconds["sparkrec, few" if quick else "sparkrec"]
    ratios["lists/spark_group"] = seconds["sparkrec, lists"] / seconds["spark_group"]
    return {"runs": [*rows.values()], "ratios": {name: round(ratio, 2) for name, ratio in ratios.items()}}


def grow(sizes: list[int], treatment: Treatment) -> dict[str, Any]:
    """Ours on 20 recommendations and 5 relevant items of more and more users: microseconds a user."""
    rows: list[Row] = []
    for users in sizes:
        with tempfile.TemporaryDirectory() as folder:
            measure(_write, folder, users, Given(0, 1, CORES))
            row = best(treatment, [(ours, f"{folder}/lists", f"{folder}/relevant", CUTOFFS)])
        rows.append({"users": users, **row, "microseconds_a_user": row["seconds"] / users * 1e6})
    show("Ours, more and more users", rows, ("users", "seconds", "microseconds_a_user"))
    each = [row["microseconds_a_user"] for row in rows]
    return {"runs": rows, "ratios": {"last/first": round(each[-1] / each[0], 2)}}


def _write(folder: str, users: int, given: Given) -> Row:
    """Tables by Spark, in no order of users."""
    from pyspark.sql import functions as F

    spark = session(given.threads)
    ids = spark.range(users, numPartitions=max(2, users // 500_000))
    user = F.pmod(F.col("id") * 0x9E3779B1, F.lit(1 << 40)).alias("user")  # an odd number: none comes twice
    first = F.pmod(F.xxhash64("id", F.lit(1)), F.lit(ITEMS))
    lists = ids.select(user, first.alias("first"), F.explode(F.sequence(F.lit(1), F.lit(20))).alias("rank"))
    item = F.pmod(F.col("first") + F.col("rank") * F.col("rank"), F.lit(ITEMS)).alias("item")
    lists.select("user", item, "rank").sortWithinPartitions("rank").write.parquet(f"{folder}/lists")
    relevant = ids.select(user, first.alias("first"), F.explode(F.sequence(F.lit(1), F.lit(5))).alias("n"))
    item = F.pmod(F.col("first") + F.col("n") * F.pmod("user", F.lit(7)), F.lit(ITEMS)).alias("item")
    relevant.select("user", item).sortWithinPartitions("item").write.parquet(f"{folder}/relevant")
    return {}


def _tables(folder: str, users: int) -> tuple[str, str]:
    """Lists of popular items, of which some are relevant, and relevant items; rows in random order."""
    Path(folder).mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(users), LISTED)
    step = 1 + rng.integers(0, ITEMS // LISTED, (users, LISTED))
    item = (rng.integers(0, ITEMS, (users, 1)) + np.cumsum(step, axis=1)) % ITEMS
    liked = rng.integers(0, ITEMS, (users, RELEVANT))
    liked[:, :4] = np.take_along_axis(item, rng.integers(0, LISTED, (users, 4)), axis=1)
    owner = np.repeat(np.arange(users), RELEVANT)
    pair = np.unique(owner * ITEMS + liked.ravel())
    rank = np.tile(np.arange(1, LISTED + 1, dtype=np.int32), users)
    paths = f"{folder}/lists.parquet", f"{folder}/relevant.parquet"
    listed: dict[str, Any] = {"user": user, "item": item.ravel(), "rank": rank}
    wanted: dict[str, Any] = {"user": pair // ITEMS, "item": pair % ITEMS}
    for path, columns in zip(paths, (listed, wanted), strict=True):
        order = rng.permutation(len(columns["user"]))
        table = pa.table({name: values[order] for name, values in columns.items()})
        pq.write_table(table, path, row_group_size=1 << 19)
    return paths


def _group(lists: str, folder: str, given: Given) -> Row:
    """Write the table of rows as one with an array for each user."""
    from pyspark.sql import functions as F

    own = F.array_sort(F.collect_list(F.struct("rank", "item")))
    rows = session(given.threads).read.parquet(lists)
    rows.groupBy("user").agg(own.alias("own")).select("user", "own.item").write.parquet(folder)
    return {}


def ours(lists: str, relevant: str, cutoffs: list[int], given: Given) -> Row:
    """Seconds of six metrics at some cutoffs, one of them 10, of two tables in Parquet."""
    from sparkrec import evaluate

    spark = session(given.threads)
    measured = {}

    def run() -> None:
        tables = spark.read.parquet(lists), spark.read.parquet(relevant)
        found = evaluate(*tables, k=cutoffs).where("metric = 'ndcg' AND k = 10").collect()
        measured["ndcg@10"] = found[0]["value"]

    return {"seconds": given.seconds(run), **measured}


def _spark_group(lists: str, relevant: str, given: Given) -> Row:
    from pyspark.sql import functions as F

    spark = session(given.threads)

    def run() -> None:
        truth = spark.read.parquet(relevant).groupBy("user").agg(F.collect_list("item"))
        for each in (spark.read.parquet(lists), truth):
            each.write.format("noop").mode("overwrite").save()

    return {"seconds": given.seconds(run)}


def _spark(lists: str, relevant: str, given: Given) -> Row:
    from pyspark.ml.evaluation import RankingEvaluator
    from pyspark.sql import functions as F

    spark = session(given.threads)
    double = F.col("item").cast("double")
    measured = {}

    def run() -> None:
        own = F.array_sort(F.collect_list(F.struct("rank", double.alias("item"))))
        predicted = spark.read.parquet(lists).groupBy("user").agg(own.alias("own"))
        predicted = predicted.select("user", F.col("own.item").alias("prediction"))
        truth = spark.read.parquet(relevant).groupBy("user").agg(F.collect_list(double).alias("label"))
        both = truth.join(predicted, "user", "left")
        both = both.withColumn("prediction", F.coalesce("prediction", F.array().cast("array<double>"))).persist()
        evaluator = RankingEvaluator(predictionCol="prediction", labelCol="label")
        for name in ("recallAtK", "precisionAtK", "meanAveragePrecisionAtK", "ndcgAtK"):
            for k in CUTOFFS:
                value = evaluator.setMetricName(name).setK(k).evaluate(both)
                if (name, k) == ("ndcgAtK", 10):
                    measured["ndcg@10"] = value
        both.unpersist(blocking=True)

    return {"seconds": given.seconds(run), **measured}


def peers(peer: str, lists: str, relevant: str, cutoffs: list[int], given: Given) -> Row:
    """The same of a peer: rectools, replay or ranx."""
    script = Path(__file__).resolve().parent / "peers" / "metrics_peer.py"
    runs = str(given.warm_up), str(given.runs)
    command = [str(PEERS.absolute()), str(script), peer, lists, relevant, json.dumps(cutoffs), *runs]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{peer}: {ended.stderr[-2000:]}")
    return dict(json.loads(ended.stdout.splitlines()[-1]))
