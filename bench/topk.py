"""The best ten items of every user: this project and MLlib on the same Spark session settings, and `implicit`.

Ours and `implicit` leave out the items that a user has rated; MLlib has no way to, so ours is timed without that, too.
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
    rows = [row for work in (_ours, _mllib, _implicit) for row in measure(work, size, rank)]
    table = Table(title=f"Top {K} of {size.items:,} items for {size.users:,} users, rank {rank}", title_justify="left")
    for column in ("system", "seen", "seconds", "peak_gb"):
        table.add_column(column, justify="left" if column in ("system", "seen") else "right")
    for row in rows:
        table.add_row(row["system"], row["seen"], f"{row['seconds']:.2f}", f"{row['peak_gb']:.2f}")
    Console(width=100).print(table)
    ours, alike, mllib, implicit = (row["seconds"] for row in rows)
    ratios = {"topk/mllib": mllib / ours, "topk/implicit": implicit / ours, "topk_seen_kept/mllib": mllib / alike}
    return {
        "size": [size.users, size.items, size.ratings],
        "rank": rank,
        "runs": rows,
        "ratios": {name: round(ratio, 2) for name, ratio in ratios.items()},
    }


def _ours(size: Size, rank: int) -> Rows:
    from sparkrec import ALS

    ratings = session().read.parquet(str(ratings_folder(size)))
    model = ALS(rank=rank, maxIter=1, implicitPrefs=True, seed=0).fit(ratings)
    return [
        _timed("sparkrec", seen, lambda exclude=exclude: _all_rows(model.recommendForAllUsers(K, exclude=exclude)))
        for seen, exclude in (("excluded", ratings), ("kept", None))
    ]


def _mllib(size: Size, rank: int) -> Rows:
    from pyspark.ml.recommendation import ALS

    ratings = session().read.parquet(str(ratings_folder(size)))
    model = ALS(rank=rank, maxIter=1, implicitPrefs=True, seed=0).fit(ratings)
    return [_timed("mllib", "kept", lambda: _all_rows(model.recommendForAllUsers(K)))]


def _implicit(size: Size, rank: int) -> Rows:
    import scipy.sparse
    from implicit.cpu.als import AlternatingLeastSquares

    table = pq.read_table(ratings_folder(size))
    cells = table["rating"].to_numpy(), (table["user"].to_numpy(), table["item"].to_numpy())
    seen = scipy.sparse.csr_matrix(cells, shape=(size.users, size.items))
    model = AlternatingLeastSquares(factors=rank, iterations=1, num_threads=2, random_state=0)
    with threadpool_limits(1, "blas"):
        model.fit(seen, show_progress=False)
    everyone = np.arange(size.users)
    return [
        _timed("implicit", "excluded", lambda: model.recommend(everyone, seen, N=K, filter_already_liked_items=True))
    ]


def _all_rows(frame: Any) -> None:
    frame.write.format("noop").mode("overwrite").save()


def _timed(system: str, seen: str, work: Any) -> dict[str, Any]:
    """The median of a few runs; the first, which compiles, is not among them."""
    work()
    watch, seconds = Stopwatch(), []
    for _ in range(REPEATS):
        watch.seconds()
        work()
        seconds.append(watch.seconds())
    return {"system": system, "seen": seen, "seconds": round(median(seconds), 2)}
