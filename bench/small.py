"""Small work, a million interactions: ours, `implicit`, RecTools, LensKit, RecBole and MLlib, from rows to lists, and
their metrics.

The rows are those of MovieLens 1M's train part in SPARKREC_DATA (`ml-1m-ncf`), cached by Spark for those on it, in a
sparse matrix for `implicit`, in a table of pandas for RecTools and LensKit, numbered by RecBole for RecBole. Every
figure is of a warm session or process; ours includes ids, rows and names. Twelve metrics are measured of the most
popular items, listed for everyone.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from bench import metrics
from bench.measure import CORES, Given, Row, Treatment, best, show
from bench.spark import NATIVE, session
from bench.training import PEERS
from sparkrec.errors import ConfigError

RANK, ITERATIONS, K, CUTOFFS = 64, 15, 20, [10, 20]
LISTS = [
    *(("rectools", kind) for kind in ("ease", "popularity")),
    *(("lenskit", kind) for kind in ("als", "itemknn", "ease", "popularity")),
    *(("recbole", kind) for kind in ("itemknn", "ease")),
]
"""Other libraries, and the kinds of theirs that are beside ours of the same name."""


def compare(treatment: Treatment) -> dict[str, Any]:
    """Run all in turn and print a table."""
    _log()  # before anything is run
    if not PEERS.exists():
        raise ConfigError("bench small needs its peers: run `make bench-peers` first, in the project's folder")
    systems: dict[str, Callable[..., Row]] = {
        "sparkrec als": _als,
        "sparkrec als, cg": _als_cg,
        "sparkrec itemknn": _itemknn,
        "sparkrec ease": _ease,
        "sparkrec popularity": _popularity,
        "implicit als": _implicit,
        "implicit als, cg": _implicit_cg,
        "implicit itemknn": _implicit_knn,
        **{f"{system} {kind}": partial(_peer, system=system, kind=kind) for system, kind in LISTS},
        "mllib als": _mllib,
    }
    own = Treatment(treatment.warm_up, treatment.runs, (CORES,))
    rows = {name: {"system": name, **best(own, [(work,)], by="fit")} for name, work in systems.items()}
    show("MovieLens 1M, from rows to the best 20 of all", [*rows.values()], ("system", "fit", "recommend"))
    with tempfile.TemporaryDirectory() as folder:
        tables = _popular_lists(folder)
        measured = {
            "sparkrec": best(own, [(metrics.ours, *tables, CUTOFFS)]),
            "rectools": best(own, [(metrics.peers, "rectools", *tables, CUTOFFS)]),
        }
    of_metrics = [{"system": name, **row} for name, row in measured.items()]
    show(f"{6 * len(CUTOFFS)} metrics of lists of 20", of_metrics, ("system", "seconds", "ndcg@10"))

    def ratio(peer: str, ours: str, what: str = "fit") -> Any:
        return round(rows[peer][what] / rows[ours][what], 2)

    return {
        "runs": [*rows.values(), *of_metrics],
        "ratios": {
            "als/implicit": ratio("implicit als", "sparkrec als"),
            "als_cg/implicit_cg": ratio("implicit als, cg", "sparkrec als, cg"),
            "als/mllib": ratio("mllib als", "sparkrec als"),
            "itemknn/implicit": ratio("implicit itemknn", "sparkrec itemknn"),
            **{f"{kind}/{system}": ratio(f"{system} {kind}", f"sparkrec {kind}") for system, kind in LISTS},
            "evaluate/rectools": round(measured["rectools"]["seconds"] / measured["sparkrec"]["seconds"], 2),
            "topk/implicit": ratio("implicit als", "sparkrec als", "recommend"),
            "topk/mllib": ratio("mllib als", "sparkrec als", "recommend"),
        },
    }


def _popular_lists(folder: str) -> tuple[str, str]:
    """Files of the 20 most popular items, listed for each user, and of 20 items that each user had: enough that all
    agree on what an ideal list is."""
    rows = pq.read_table(_log(), columns=["user_id", "item_id"]).rename_columns(["user", "item"])
    user = rows["user"].to_numpy()
    order = np.argsort(user, kind="stable")
    users, first = np.unique(user[order], return_index=True)
    place = np.arange(len(user)) - np.repeat(first, np.diff([*first, len(user)]))
    relevant = rows.take(pa.array(order[place < K]))
    items, counts = np.unique(rows["item"].to_numpy(), return_counts=True)
    listed = {
        "user": np.repeat(users, K),
        "item": np.tile(items[np.argsort(-counts)[:K]], len(users)),
        "rank": np.tile(np.arange(1, K + 1, dtype=np.int32), len(users)),
    }
    paths = f"{folder}/lists.parquet", f"{folder}/relevant.parquet"
    pq.write_table(pa.table(listed), paths[0])
    pq.write_table(relevant, paths[1])
    return paths


def _peer(given: Given, system: str, kind: str) -> Row:
    script = Path(__file__).resolve().parent / "peers" / "lists_peer.py"
    numbers = map(str, (K, given.warm_up, given.runs, given.threads))
    command = [str(PEERS.absolute()), str(script), system, kind, str(_log()), *numbers]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{system} {kind}: {ended.stderr[-2000:]}")
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def _log() -> Path:
    root = os.environ.get("SPARKREC_DATA")
    if not root:
        raise ConfigError(
            "SPARKREC_DATA is not set: it names the folder of the public data sets, of which this takes one"
        )
    return Path(root) / "ml-1m-ncf" / "train.parquet"


def _rows(threads: int, blas: str | None = None) -> Any:
    from pyspark.sql import functions as F

    spark = session(threads, blas) if blas else session(threads)
    ids = [F.col(f"{side}_id").cast("long").alias(side) for side in ("user", "item")]
    rows = spark.read.parquet(str(_log())).select(*ids, F.lit(1.0).alias("rating")).cache()
    rows.count()
    return rows


def _ours(given: Given, kind: str, **settings: Any) -> Row:
    from sparkrec import fit

    rows = _rows(given.threads).select("user", "item")
    models: list[Any] = []

    def work() -> None:
        models[:] = [fit(rows, kind=kind, **settings)]

    fitted = given.seconds(work)
    return {"fit": fitted, "recommend": given.seconds(lambda: models[0].recommend(K).toArrow())}


def _als(given: Given) -> Row:
    return _ours(given, "als", rank=RANK, iterations=ITERATIONS)


def _als_cg(given: Given) -> Row:
    return _ours(given, "als", rank=RANK, iterations=ITERATIONS, solver="cg")


def _itemknn(given: Given) -> Row:
    return _ours(given, "itemknn", neighbors=K)


def _ease(given: Given) -> Row:
    return _ours(given, "ease")


def _popularity(given: Given) -> Row:
    return _ours(given, "popularity")


def _of_implicit(given: Given, make: Callable[[], Any]) -> Row:
    import scipy.sparse

    table = pq.read_table(_log())
    user, item = (np.unique(table[f"{side}_id"].to_numpy(), return_inverse=True)[1] for side in ("user", "item"))
    seen = scipy.sparse.csr_matrix((np.ones(len(user), np.float32), (user, item)))
    models: list[Any] = []

    def work() -> None:
        models[:] = [make()]
        models[0].fit(seen, show_progress=False)

    with threadpool_limits(1, "blas"):
        fitted = given.seconds(work)
        everyone = np.arange(seen.shape[0])
        return {"fit": fitted, "recommend": given.seconds(lambda: models[0].recommend(everyone, seen, N=K))}


def _implicit(given: Given, use_cg: bool = False) -> Row:
    from implicit.cpu.als import AlternatingLeastSquares

    return _of_implicit(
        given,
        lambda: AlternatingLeastSquares(
            factors=RANK, iterations=ITERATIONS, use_cg=use_cg, num_threads=given.threads, random_state=0
        ),
    )


def _implicit_cg(given: Given) -> Row:
    return _implicit(given, use_cg=True)


def _implicit_knn(given: Given) -> Row:
    from implicit.nearest_neighbours import CosineRecommender

    return _of_implicit(given, lambda: CosineRecommender(K=K, num_threads=given.threads))


def _mllib(given: Given) -> Row:
    from pyspark.ml.recommendation import ALS

    rows = _rows(given.threads, NATIVE if "BENCH_BLAS" in os.environ else None)
    als = ALS(rank=RANK, maxIter=ITERATIONS, implicitPrefs=True, seed=0)
    models: list[Any] = []

    def work() -> None:
        models[:] = [als.fit(rows)]
        models[0].itemFactors.count()

    fitted = given.seconds(work)
    return {"fit": fitted, "recommend": given.seconds(lambda: models[0].recommendForAllUsers(K).toArrow())}
