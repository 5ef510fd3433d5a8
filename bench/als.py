"""ALS: this project and MLlib on the same Spark session settings, and `implicit` on the same cores."""

from __future__ import annotations

from statistics import median
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from bench.measure import Rows, Stopwatch, measure
from bench.ratings import SIZES, Size, ratings_folder
from bench.spark import session
from sparkrec.kernels.als import gram, squared_loss
from sparkrec.kernels.csr import Csr

ALPHA, REGULARIZATION = 1.0, 0.05
# The objective of each peer, for ours to be the same: what the penalty is multiplied by, and the solver.
SAME_AS = {
    "mllib": {"scaling": "count", "solver": "cholesky"},
    "implicit_exact": {"scaling": "none", "solver": "cholesky"},
    "implicit_cg": {"scaling": "none", "solver": "cg"},
}


def compare(sizes: list[str], rank: int, explicit: bool, peers: list[str], iterations: int) -> dict[str, Any]:
    """Run all and print a table; `ratios` are of the last of `sizes` with peers."""
    peers = [peer for peer in peers if peer == "mllib" or not explicit]
    rows: Rows = []
    ratios: dict[str, float] = {}
    for name in sizes:
        ratings_folder(SIZES[name])
        beside = peers if name != "100M" else []
        given = SIZES[name], rank, explicit, iterations
        ours = measure(_ours, *given, [SAME_AS[peer] for peer in beside or ["mllib"]])
        rows += _report("sparkrec", name, ours)
        for peer, our in zip(beside, ours, strict=False):
            (theirs,) = measure(_mllib if peer == "mllib" else _implicit, *given, SAME_AS[peer])
            rows += _report(peer, name, [theirs])
            ratios[f"iteration/{peer}"] = round(theirs["iteration"] / our["iteration"], 2)
            if peer == "mllib":
                ratios["fit/mllib"] = round(theirs["fit"] / our["fit"], 2)
    _show(rows)
    return {"rank": rank, "explicit": explicit, "iterations": iterations, "runs": rows, "ratios": ratios}


def _report(system: str, size: str, results: Rows) -> Rows:
    rows = [{"system": system, "size": size, **result} for result in results]
    rows = [{key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()} for row in rows]
    for row in rows:
        Console(stderr=True).print(row)
    return rows


def _show(rows: Rows) -> None:
    table = Table(title="Seconds", title_justify="left")
    for column in ("system", "size", "scaling", "solver", "iteration", "fit", "peak_gb", "loss"):
        table.add_column(column, justify="left" if column in ("system", "size") else "right")
    for row in rows:
        table.add_row(*[str(row[column.header]) for column in table.columns])
    Console(width=120).print(table)


def _ours(size: Size, rank: int, explicit: bool, iterations: int, objectives: list[dict[str, str]]) -> Rows:
    from sparkrec import ALS

    frame = session().read.parquet(str(ratings_folder(size)))
    als = ALS(rank=rank, regParam=REGULARIZATION, implicitPrefs=not explicit, alpha=ALPHA, seed=0)
    als.setMaxIter(1).fit(_few(frame))
    rows = []
    for objective in objectives:
        als.setMaxIter(iterations).setRegScaling(objective["scaling"]).setSolver(objective["solver"])
        watch = Stopwatch()
        model = als.fit(frame)
        fit = watch.seconds()
        history = model.fitted.history
        rows.append(
            {
                **objective,
                "iteration": median([entry["seconds"] for entry in history[1:]]),
                "fit": fit,
                "layout": fit - sum(entry["seconds"] for entry in history),
                "kernel": median([entry["kernel_seconds"] for entry in history[1:]]),
                "loss": _loss_of_model(model, size, explicit, objective),
            }
        )
    return rows


def _few(frame: Any) -> Any:
    """What a fit warms up with: workers start, the JVM compiles."""
    return frame.where("user % 50 = 0")


def _mllib(size: Size, rank: int, explicit: bool, iterations: int, objective: dict[str, str]) -> Rows:
    from pyspark.ml.recommendation import ALS

    frame = session().read.parquet(str(ratings_folder(size)))
    als = ALS(rank=rank, regParam=REGULARIZATION, implicitPrefs=not explicit, alpha=ALPHA, seed=0)
    als.setMaxIter(1).fit(_few(frame))
    seconds = []
    for n in (0, iterations):  # an iteration is what more of them take
        watch = Stopwatch()
        model = als.setMaxIter(n).fit(frame)
        model.userFactors.count(), model.itemFactors.count()
        seconds.append(watch.seconds())
    iteration = (seconds[1] - seconds[0]) / iterations
    loss = _loss_of_model(model, size, explicit, objective)
    return [{**objective, "iteration": iteration, "fit": seconds[1], "loss": loss}]


def _implicit(size: Size, rank: int, explicit: bool, iterations: int, objective: dict[str, str]) -> Rows:
    import scipy.sparse
    from implicit.cpu.als import AlternatingLeastSquares

    table = pq.read_table(ratings_folder(size))
    cells = table["rating"].to_numpy(), (table["user"].to_numpy(), table["item"].to_numpy())
    counts = scipy.sparse.csr_matrix(cells, shape=(size.users, size.items))
    model = AlternatingLeastSquares(
        factors=rank,
        regularization=REGULARIZATION,
        alpha=ALPHA,
        use_native=True,
        use_cg=objective["solver"] == "cg",
        iterations=iterations,
        num_threads=2,
        random_state=0,
    )
    each: list[float] = []
    watch = Stopwatch()
    # Its confidence is alpha r, ours and Hu's 1 + alpha r.
    counts.data = 1.0 + ALPHA * counts.data
    with threadpool_limits(1, "blas"):  # its own advice: its threads are over rows
        model.fit(counts, show_progress=False, callback=lambda step, seconds, *_: each.append(seconds))
    fit = watch.seconds()
    loss = _loss(size, explicit, objective, model.user_factors, model.item_factors)
    return [{**objective, "iteration": median(each[1:]), "fit": fit, "loss": loss}]


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
