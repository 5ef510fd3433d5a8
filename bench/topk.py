"""The best ten items of every user: this project and MLlib on the same Spark session settings, and `implicit`.

Ours and `implicit` leave out the items that a user has rated; MLlib has no way to.
"""

from __future__ import annotations

from statistics import median
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from bench.measure import Rows, Stopwatch, measure
from bench.ratings import Size, ratings_folder
from bench.spark import session

K, REPEATS = 10, 3


def compare(size: Size, rank: int) -> dict[str, Any]:
    """Run all in turn and print a table."""
    ratings_folder(size)
    systems = {"sparkrec": _ours, "mllib": _mllib, "implicit": _implicit}
    rows = {name: measure(work, size, rank)[0] for name, work in systems.items()}
    table = Table(title=f"Top {K} of {size.items:,} items for {size.users:,} users, rank {rank}", title_justify="left")
    for column in ("system", "seconds", "peak_gb"):
        table.add_column(column, justify="left" if column == "system" else "right")
    for name, row in rows.items():
        table.add_row(name, f"{row['seconds']:.2f}", f"{row['peak_gb']:.2f}")
    Console(width=100).print(table)
    ratios = {f"topk/{name}": round(rows[name]["seconds"] / rows["sparkrec"]["seconds"], 2) for name in systems}
    del ratios["topk/sparkrec"]
    return {"size": [size.users, size.items, size.ratings], "rank": rank, "runs": rows, "ratios": ratios}


def _ours(size: Size, rank: int) -> Rows:
    from sparkrec import ALS

    ratings = session().read.parquet(str(ratings_folder(size)))
    model = ALS(rank=rank, maxIter=1, implicitPrefs=True, seed=0).fit(ratings)
    return _timed(lambda: model.recommendForAllUsers(K, exclude=ratings).write.format("noop").mode("overwrite").save())


def _mllib(size: Size, rank: int) -> Rows:
    from pyspark.ml.recommendation import ALS

    ratings = session().read.parquet(str(ratings_folder(size)))
    model = ALS(rank=rank, maxIter=1, implicitPrefs=True, seed=0).fit(ratings)
    return _timed(lambda: model.recommendForAllUsers(K).write.format("noop").mode("overwrite").save())


def _implicit(size: Size, rank: int) -> Rows:
    import scipy.sparse
    from implicit.cpu.als import AlternatingLeastSquares

    table = pq.read_table(ratings_folder(size))
    cells = table["rating"].to_numpy(), (table["user"].to_numpy(), table["item"].to_numpy())
    seen = scipy.sparse.csr_matrix(cells, shape=(size.users, size.items))
    model = AlternatingLeastSquares(factors=rank, iterations=1, num_threads=2, random_state=0)
    with threadpool_limits(1, "blas"):
        model.fit(seen, show_progress=False)
    return _timed(lambda: model.recommend(np.arange(size.users), seen, N=K, filter_already_liked_items=True))


def _timed(work: Any) -> Rows:
    """The median of a few runs; the first, which compiles, is not among them."""
    work()
    watch, seconds = Stopwatch(), []
    for _ in range(REPEATS):
        watch.seconds()
        work()
        seconds.append(watch.seconds())
    return [{"seconds": round(median(seconds), 2)}]
