"""ALS: this project and MLlib on the same Spark session settings, and `implicit` on the same cores.

MLlib is tried with native and with Java's linear algebra, and `implicit` starts from arrays in memory, where the two on
Spark start from Parquet files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from bench.measure import Given, Row, Treatment, best, show
from bench.ratings import SIZES, Size, ratings_folder
from bench.spark import JAVA, NATIVE, linear_algebra, session
from sparkrec.kernels.als.half_step import gram, squared_loss
from sparkrec.kernels.csr import Csr

ALPHA, REGULARIZATION = 1.0, 0.05
# The objective of each peer, for ours to be the same: what the penalty is multiplied by, and the solver.
SAME_AS = {
    "mllib": {"scaling": "count", "solver": "cholesky"},
    "implicit_exact": {"scaling": "none", "solver": "cholesky"},
    "implicit_cg": {"scaling": "none", "solver": "cg"},
}


def compare(
    sizes: list[str], rank: int, explicit: bool, peers: list[str], iterations: int, treatment: Treatment
) -> dict[str, Any]:
    """Run all and print a table; `ratios` are of the last of `sizes` with peers."""
    peers = [peer for peer in peers if peer == "mllib" or not explicit]
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    for name in sizes:
        ratings_folder(SIZES[name])
        beside = peers if name != "100M" else []
        for peer in beside or ["mllib"]:
            problem = SIZES[name], rank, explicit, iterations, SAME_AS[peer]
            ours = best(treatment, [(_ours, *problem)], by="fit")
            rows.append({"system": "sparkrec", "size": name, **ours})
            if peer in beside:
                ways = [(_mllib, *problem, blas) for blas in (NATIVE, JAVA)]
                theirs = best(treatment, ways if peer == "mllib" else [(_implicit, *problem)], by="fit")
                rows.append({"system": peer, "size": name, **theirs})
                ratios |= {f"{what}/{peer}": round(theirs[what] / ours[what], 2) for what in ("iteration", "fit")}
    columns = ("system", "size", "scaling", "solver", "blas", "iteration", "fit", "loss")
    show(f"Seconds; a fit has {iterations} iterations", rows, columns)
    return {"rank": rank, "explicit": explicit, "iterations": iterations, "runs": rows, "ratios": ratios}


def _fits(fit: Callable[[int], Any], iterations: int, given: Given) -> Row:
    """Seconds of a whole fit, from data to factors, and of an iteration: what each after the first adds to it."""
    iterations = 2 if given.trial else iterations
    one, all_of_them = given.seconds(lambda: fit(1)), given.timed(lambda: fit(iterations))
    return {"iteration": (all_of_them - one) / (iterations - 1), "fit": all_of_them}


def _by_spark(als: Any, frame: Any, iterations: int, given: Given) -> tuple[Row, Any]:
    """The seconds of an estimator, ours or MLlib's, and the model of its last fit."""
    models: list[Any] = []

    def fit(n: int) -> None:
        model = als.setMaxIter(n).fit(frame)
        model.userFactors.count(), model.itemFactors.count()  # MLlib makes them when they are asked for
        models[:] = [model]

    return _fits(fit, iterations, given), models[0]


def _ours(size: Size, rank: int, explicit: bool, iterations: int, objective: dict[str, str], given: Given) -> Row:
    from sparkrec import ALS

    frame = session(given.threads).read.parquet(str(ratings_folder(size)))
    als = ALS(rank=rank, regParam=REGULARIZATION, implicitPrefs=not explicit, alpha=ALPHA, seed=0)
    als.setRegScaling(objective["scaling"]).setSolver(objective["solver"])
    seconds, model = _by_spark(als, frame, iterations, given)
    return {**objective, **seconds, "loss": _loss_of_model(model, size, explicit, objective)}


def _mllib(
    size: Size, rank: int, explicit: bool, iterations: int, objective: dict[str, str], blas: str, given: Given
) -> Row:
    from pyspark.ml.recommendation import ALS

    spark = session(given.threads, blas)
    used = linear_algebra(spark, blas)
    frame = spark.read.parquet(str(ratings_folder(size)))
    als = ALS(rank=rank, regParam=REGULARIZATION, implicitPrefs=not explicit, alpha=ALPHA, seed=0)
    seconds, model = _by_spark(als, frame, iterations, given)
    return {**objective, "blas": used, **seconds, "loss": _loss_of_model(model, size, explicit, objective)}


def _implicit(size: Size, rank: int, explicit: bool, iterations: int, objective: dict[str, str], given: Given) -> Row:
    import scipy.sparse
    from implicit.cpu.als import AlternatingLeastSquares

    table = pq.read_table(ratings_folder(size))
    pairs = table["user"].to_numpy(), table["item"].to_numpy()
    # Its confidence is alpha r, ours and Hu's 1 + alpha r.
    confidence = 1.0 + ALPHA * table["rating"].to_numpy()
    models: list[Any] = []

    def fit(n: int) -> None:
        counts = scipy.sparse.csr_matrix((confidence, pairs), shape=(size.users, size.items))
        with threadpool_limits(1, "blas"):  # its own advice: its threads are over rows
            model = AlternatingLeastSquares(
                factors=rank,
                regularization=REGULARIZATION,
                alpha=ALPHA,
                use_native=True,
                use_cg=objective["solver"] == "cg",
                iterations=n,
                num_threads=given.threads,
                random_state=0,
            )
            model.fit(counts, show_progress=False)
        models[:] = [model]

    seconds = _fits(fit, iterations, given)
    loss = _loss(size, explicit, objective, models[0].user_factors, models[0].item_factors)
    return {**objective, **seconds, "loss": loss}


def _loss_of_model(model: Any, size: Size, explicit: bool, objective: dict[str, str]) -> float:
    sides = (model.userFactors, size.users), (model.itemFactors, size.items)
    return _loss(size, explicit, objective, *(_matrix(side, n) for side, n in sides))


def _matrix(factors: Any, n: int) -> np.ndarray:
    """(n, rank) float32 of rows (id, features array<float>)."""
    table = factors.toArrow()
    values = table["features"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    matrix = np.zeros((n, values.shape[1]), np.float32)
    matrix[table["id"].to_numpy()] = values
    return matrix


def _loss(size: Size, explicit: bool, objective: dict[str, str], users: np.ndarray, items: np.ndarray) -> float:
    """The objective, in millions."""
    table = pq.read_table(ratings_folder(size))
    user, item, rating = (table[name].to_numpy() for name in ("user", "item", "rating"))
    values = Csr.from_pairs(user, item, rating if explicit else np.ones(len(rating)), size.users)
    ratings = Csr.from_pairs(user, item, rating, size.users).values
    confidence = (np.ones(len(rating)) if explicit else 1.0 + ALPHA * ratings).astype(np.float32)
    weight = 0.0 if explicit else 1.0
    total = squared_loss(values, confidence, users, items, weight, weight * gram(items))
    for side, ids, n in ((users, user, size.users), (items, item, size.items)):
        reg = np.bincount(ids, minlength=n) if objective["scaling"] == "count" else np.ones(n)
        total += REGULARIZATION * float(reg @ np.einsum("nd,nd->n", side, side, dtype=np.float64))
    return total / 1e6
