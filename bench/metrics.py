"""Ranking metrics: seconds for six metrics at five cutoffs, beside RecTools, Spark's RankingEvaluator, RePlay and ranx.

From two Parquet tables of rows, 100 recommendations and 20 relevant items of each user, in no order; reading and
grouping are part of it. Spark's evaluator knows four of the six metrics: it is timed on those. `spark_group` reads and
groups both tables in Spark and does nothing with them. `--quick` has fewer users, peers run once, and ranx has an
eighth of the users, as `sparkrec, few` has.
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
from rich.console import Console
from rich.table import Table

from bench.measure import Rows, Stopwatch, measure
from bench.spark import session
from bench.training import PEERS
from sparkrec.errors import ConfigError

USERS, QUICK_USERS, ITEMS, LISTED, RELEVANT = 138_000, 50_000, 27_000, 100, 20
CUTOFFS = [1, 5, 10, 20, 50]
REPEATS = 3
FEWER = 8
"""Times fewer users of what is slow, in a quick run."""


def compare(quick: bool) -> dict[str, Any]:
    """Run all in turn and print a table."""
    if not PEERS.exists():
        raise ConfigError("bench metrics needs its peers: run `make bench-peers` first, in the project's folder")
    rows: Rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = _tables(folder, QUICK_USERS if quick else USERS)
        few = _tables(f"{folder}/few", QUICK_USERS // FEWER) if quick else paths
        repeats = 1 if quick else 2
        for work, *arguments in (
            (_ours, "sparkrec", *paths),
            *([(_ours, "sparkrec, few", *few)] if quick else []),
            (_spark, "", *paths),
            (_peer, f"rectools {repeats}", *paths),
            (_peer, f"replay {repeats}", *paths),
            (_peer, "ranx 1", *few),
        ):
            rows += measure(work, *arguments)
            Console(stderr=True).print(rows[-1])
    table = Table(
        title=f"{6 * len(CUTOFFS)} metrics of {QUICK_USERS if quick else USERS:,} users", title_justify="left"
    )
    for column in ("system", "seconds", "ndcg@10", "peak_gb"):
        table.add_column(column, justify="left" if column == "system" else "right")
    for row in rows:
        ndcg = "" if row.get("ndcg@10") is None else f"{row['ndcg@10']:.6f}"
        table.add_row(row["system"], f"{row['seconds']:.2f}", ndcg, f"{row['peak_gb']:.2f}")
    Console(width=100).print(table)
    seconds = {row["system"]: row["seconds"] for row in rows}
    ratios = {f"metrics/{name}": seconds[name] / seconds["sparkrec"] for name in ("rectools", "spark", "replay")}
    ratios["metrics/ranx"] = seconds["ranx"] / seconds["sparkrec, few" if quick else "sparkrec"]
    ratios["lists/spark_group"] = seconds["sparkrec, lists"] / seconds["spark_group"]
    return {"runs": rows, "ratios": {name: round(ratio, 2) for name, ratio in ratios.items()}}


def grow(sizes: list[int]) -> dict[str, Any]:
    """Ours on 20 recommendations and 5 relevant items of more and more users: microseconds a user."""
    rows: Rows = []
    for users in sizes:
        with tempfile.TemporaryDirectory() as folder:
            measure(_write, folder, users)
            rows += measure(_grown, folder, users)
            Console(stderr=True).print(rows[-1])
    each = [row["microseconds_a_user"] for row in rows]
    return {"runs": rows, "ratios": {"last/first": round(each[-1] / each[0], 2)}}


def _write(folder: str, users: int) -> Rows:
    """Tables by Spark, in no order of users."""
    from pyspark.sql import functions as F

    spark = session()
    ids = spark.range(users, numPartitions=max(2, users // 500_000))
    user = F.pmod(F.col("id") * 0x9E3779B1, F.lit(1 << 40)).alias("user")  # an odd number: none comes twice
    first = F.pmod(F.xxhash64("id", F.lit(1)), F.lit(ITEMS))
    lists = ids.select(user, first.alias("first"), F.explode(F.sequence(F.lit(1), F.lit(20))).alias("rank"))
    item = F.pmod(F.col("first") + F.col("rank") * F.col("rank"), F.lit(ITEMS)).alias("item")
    lists.select("user", item, "rank").sortWithinPartitions("rank").write.parquet(f"{folder}/lists")
    relevant = ids.select(user, first.alias("first"), F.explode(F.sequence(F.lit(1), F.lit(5))).alias("n"))
    item = F.pmod(F.col("first") + F.col("n") * F.pmod("user", F.lit(7)), F.lit(ITEMS)).alias("item")
    relevant.select("user", item).sortWithinPartitions("item").write.parquet(f"{folder}/relevant")
    return []


def _grown(folder: str, users: int) -> Rows:
    from sparkrec import evaluate

    spark = session()
    tables = [spark.read.parquet(f"{folder}/{name}") for name in ("lists", "relevant")]
    seconds = []
    for _ in range(3 if users < 1_000_000 else 1):
        watch = Stopwatch()
        found = evaluate(*tables, k=CUTOFFS).where("metric = 'ndcg' AND k = 10").collect()[0]
        seconds.append(watch.seconds())
    each = round(min(seconds) / users * 1e6, 2)
    return [{"users": found["users"], "seconds": round(min(seconds), 2), "microseconds_a_user": each}]


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
    for path, columns in (
        (paths[0], {"user": user, "item": item.ravel(), "rank": rank}),
        (paths[1], {"user": pair // ITEMS, "item": pair % ITEMS}),
    ):
        order = rng.permutation(len(columns["user"]))
        table = pa.table({name: values[order] for name, values in columns.items()})
        pq.write_table(table, path, row_group_size=1 << 19)
    return paths


def _ours(name: str, lists: str, relevant: str) -> Rows:
    from pyspark.sql import functions as F

    spark = session()
    rows, truth = spark.read.parquet(lists), spark.read.parquet(relevant)
    if name != "sparkrec":
        return [_timed(name, rows, truth)]
    own = F.array_sort(F.collect_list(F.struct("rank", "item")))
    folder = f"{Path(lists).parent}/grouped"
    rows.groupBy("user").agg(own.alias("own")).select("user", "own.item").write.parquet(folder)
    found = [_timed(name, rows, truth), _timed("sparkrec, lists", spark.read.parquet(folder), truth)]
    seconds = []
    for _ in range(REPEATS):
        watch = Stopwatch()
        for each in (spark.read.parquet(folder), truth.groupBy("user").agg(F.collect_list("item"))):
            each.write.format("noop").mode("overwrite").save()
        seconds.append(watch.seconds())
    return [*found, {"system": "spark_group", "seconds": round(min(seconds), 2)}]


def _timed(name: str, rows: Any, truth: Any) -> dict[str, Any]:
    """The best of REPEATS."""
    from sparkrec import evaluate

    seconds = []
    for _ in range(REPEATS):
        watch = Stopwatch()
        measured = evaluate(rows, truth, k=CUTOFFS).where("metric = 'ndcg' AND k = 10").collect()
        seconds.append(watch.seconds())
    return {"system": name, "seconds": round(min(seconds), 2), "ndcg@10": measured[0]["value"]}


def _spark(_: str, lists: str, relevant: str) -> Rows:
    from pyspark.ml.evaluation import RankingEvaluator
    from pyspark.sql import functions as F

    spark = session()
    watch = Stopwatch()
    own = F.array_sort(F.collect_list(F.struct("rank", F.col("item").cast("double").alias("item"))))
    predicted = spark.read.parquet(lists).groupBy("user").agg(own.alias("own")).select("user", "own.item")
    truth = (
        spark.read.parquet(relevant).groupBy("user").agg(F.collect_list(F.col("item").cast("double")).alias("label"))
    )
    both = truth.join(predicted.withColumnRenamed("item", "prediction"), "user", "left")
    both = both.withColumn("prediction", F.coalesce("prediction", F.array().cast("array<double>"))).persist()
    names = ("ndcgAtK", "recallAtK", "precisionAtK", "meanAveragePrecisionAtK")
    values = {
        (name, k): RankingEvaluator(metricName=name, k=k, predictionCol="prediction", labelCol="label").evaluate(both)
        for name in names
        for k in CUTOFFS
    }
    return [{"system": "spark", "seconds": round(watch.seconds(), 2), "ndcg@10": values["ndcgAtK", 10]}]


def _peer(about: str, lists: str, relevant: str) -> Rows:
    """about: a peer and how often it runs."""
    peer, repeats = about.split()
    script = Path(__file__).resolve().parent / "peers" / "metrics_peer.py"
    command = [str(PEERS.absolute()), str(script), peer, lists, relevant, json.dumps(CUTOFFS), repeats]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{peer}: {ended.stderr[-2000:]}")
    return [{"system": peer, **json.loads(ended.stdout.splitlines()[-1])}]
