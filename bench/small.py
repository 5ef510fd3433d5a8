"""Small work, a million interactions: ours, `implicit` and MLlib, from rows to lists.

The rows are those of MovieLens 1M's train part in SPARKREC_DATA (`ml-1m-ncf`), cached by Spark for those on it, in a
sparse matrix for `implicit`. Every figure is of a warm session or process; ours includes ids, rows and names.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from bench.measure import CORES, Given, Row, Treatment, best, show
from bench.spark import NATIVE, session
from sparkrec.errors import ConfigError

RANK, ITERATIONS, K = 64, 15, 20


def compare(treatment: Treatment) -> dict[str, Any]:
    """Run all in turn and print a table."""
    _log()  # before anything is run
    systems: dict[str, Callable[..., Row]] = {
        "sparkrec als": _als,
        "sparkrec als, cg": _als_cg,
        "sparkrec itemknn": _itemknn,
        "sparkrec ease": _ease,
        "sparkrec popularity": _popularity,
        "implicit als": _implicit,
        "implicit als, cg": _implicit_cg,
        "implicit itemknn": _implicit_knn,
        "mllib als": _mllib,
    }
    own = Treatment(treatment.warm_up, treatment.runs, (CORES,))
    rows = {name: {"system": name, **best(own, [(work,)], by="fit")} for name, work in systems.items()}
    show("MovieLens 1M, from rows to the best 20 of all", [*rows.values()], ("system", "fit", "recommend"))

    def ratio(peer: str, ours: str, what: str = "fit") -> float:
        return round(rows[peer][what] / rows[ours][what], 2)

    return {
        "runs": [*rows.values()],
        "ratios": {
            "als/implicit": ratio("implicit als", "sparkrec als"),
            "als_cg/implicit_cg": ratio("implicit als, cg", "sparkrec als, cg"),
            "als/mllib": ratio("mllib als", "sparkrec als"),
            "itemknn/implicit": ratio("implicit itemknn", "sparkrec itemknn"),
            "topk/implicit": ratio("implicit als", "sparkrec als", "recommend"),
            "topk/mllib": ratio("mllib als", "sparkrec als", "recommend"),
        },
    }


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
