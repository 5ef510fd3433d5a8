"""ALS: this project and MLlib on the same Spark session settings, and `implicit` on the same cores."""

from __future__ import annotations

import os
from statistics import median
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from bench.measure import Stopwatch, measure
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
    rows: list[dict[str, Any]] = []
    for name in sizes:
        ratings_folder(SIZES[name])
        with_peers = peers if name != "100M" else []
        for peer in with_peers or ["mllib"]:
            given = SIZES[name], rank, explicit, iterations, SAME_AS[peer]
            rows.append({**_entry("sparkrec", name, measure(_ours, *given)), **SAME_AS[peer]})
            if peer in with_peers:
                rows[-1]["beside"] = peer
                work = _mllib if peer == "mllib" else _implicit
                rows.append({**_entry(peer, name, measure(work, *given)), **SAME_AS[peer]})
    _show(rows)
    compared = [row for row in rows if row["size"] == [name for name in sizes if name != "100M"][-1]]
    ours = {row["beside"]: row for row in compared if "beside" in row}
    theirs = {row["system"]: row for row in compared if row["system"] != "sparkrec"}
    ratios = {f"iteration/{peer}": round(theirs[peer]["iteration"] / ours[peer]["iteration"], 2) for peer in theirs}
    if "mllib" in theirs:
        ratios["fit/mllib"] = round(theirs["mllib"]["fit"] / ours["mllib"]["fit"], 2)
    return {"rank": rank, "explicit": explicit, "iterations": iterations, "runs": rows, "ratios": ratios}


def _entry(system: str, size: str, result: dict[str, Any]) -> dict[str, Any]:
    shown = {key: round(value, 2) if isinstance(value, float) else value for key, value in result.items()}
    entry = {"system": system, "size": size, **shown}
    Console(stderr=True).print(entry)
    return entry


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table(title="Seconds", title_justify="left")
    for column in ("system", "size", "scaling", "solver", "iteration", "fit", "peak_gb", "loss"):
        table.add_column(column, justify="left" if column in ("system", "size") else "right")
    for row in rows:
        table.add_row(*[str(row[column.header]) for column in table.columns])
    Console(width=120).print(table)


def _ours(size: Size, rank: int, explicit: bool, iterations: int, same: dict[str, str]) -> dict[str, Any]:
    from sparkrec import ALS

    frame = session().read.parquet(str(ratings_folder(size)))
    als = ALS(rank=rank, maxIter=iterations, regParam=REGULARIZATION, implicitPrefs=not explicit, alpha=ALPHA, seed=0)
    als.setRegScaling(same["scaling"]).setSolver(same["solver"])
    watch = Stopwatch()
    model = als.fit(frame)
    fit = watch.seconds()
    history = model.fitted.history
    both = _both(model.userFactors, model.itemFactors, size)
    return {
        "iteration": median([entry["seconds"] for entry in history[1:]]),
        "fit": fit,
        "layout": fit - sum(entry["seconds"] for entry in history),
        "kernel": median([entry["kernel_seconds"] for entry in history[1:]]),
        "loss": _loss(size, explicit, same, *(_matrix(side, n) for side, n in both)),
    }


def _mllib(size: Size, rank: int, explicit: bool, iterations: int, same: dict[str, str]) -> dict[str, Any]:
    from pyspark.ml.recommendation import ALS

    frame = session().read.parquet(str(ratings_folder(size)))
    als = ALS(rank=rank, regParam=REGULARIZATION, implicitPrefs=not explicit, alpha=ALPHA, seed=0)
    seconds = []
    for n in (1, iterations):  # an iteration is what more of them take
        watch = Stopwatch()
        model = als.setMaxIter(n).fit(frame)
        model.userFactors.count(), model.itemFactors.count()
        seconds.append(watch.seconds())
    both = _both(model.userFactors, model.itemFactors, size)
    return {
        "iteration": (seconds[1] - seconds[0]) / (iterations - 1),
        "fit": seconds[1],
        "loss": _loss(size, explicit, same, *(_matrix(side, n) for side, n in both)),
    }


def _implicit(size: Size, rank: int, explicit: bool, iterations: int, same: dict[str, str]) -> dict[str, Any]:
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
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
        use_cg=same["solver"] == "cg",
        iterations=iterations,
        num_threads=2,
        random_state=0,
    )
    each: list[float] = []
    watch = Stopwatch()
    # Its confidence is alpha r, ours and Hu's 1 + alpha r.
    counts.data = 1.0 + ALPHA * counts.data
    model.fit(counts, show_progress=False, callback=lambda step, seconds, *_: each.append(seconds))
    fit = watch.seconds()
    loss = _loss(size, explicit, same, model.user_factors, model.item_factors)
    return {"iteration": median(each[1:]), "fit": fit, "loss": loss}


def _both(users: Any, items: Any, size: Size) -> list[tuple[Any, int]]:
    return [(users, size.users), (items, size.items)]


def _matrix(factors: Any, n: int) -> np.ndarray:
    """(n, rank) float32 of rows (id, features array<float>)."""
    table = factors.toArrow()
    values = table["features"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    matrix = np.zeros((n, values.shape[1]), np.float32)
    matrix[table["id"].to_numpy()] = values
    return matrix


def _loss(size: Size, explicit: bool, same: dict[str, str], users: np.ndarray, items: np.ndarray) -> float:
    """The objective, in millions."""
    table = pq.read_table(ratings_folder(size))
    user, item, rating = (table[name].to_numpy() for name in ("user", "item", "rating"))
    values = Csr.from_pairs(user, item, rating if explicit else np.ones(len(rating)), size.users)
    ratings = Csr.from_pairs(user, item, rating, size.users).values
    confidence = (np.ones(len(rating)) if explicit else 1.0 + ALPHA * ratings).astype(np.float32)
    weight = 0.0 if explicit else 1.0
    total = squared_loss(values, confidence, users, items, weight, weight * gram(items))
    for side, ids, n in ((users, user, size.users), (items, item, size.items)):
        reg = np.bincount(ids, minlength=n) if same["scaling"] == "count" else np.ones(n)
        total += REGULARIZATION * float(reg @ np.einsum("nd,nd->n", side, side, dtype=np.float64))
    return total / 1e6
