"""The best ten items of every user: this project and MLlib on the same Spark session settings, and `implicit`.

Ours and `implicit` leave out the items that a user has rated; MLlib has no way to, so ours is timed without that, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from bench.measure import Given, Row, Treatment, best, show
from bench.ratings import Size, ratings_folder
from bench.spark import JAVA, NATIVE, linear_algebra, session

K = 10


def compare(size: Size, rank: int, treatment: Treatment) -> dict[str, Any]:
    """Run all in turn and print a table."""
    ratings_folder(size)
    contestants: dict[str, list[tuple[Any, ...]]] = {
        "sparkrec, seen excluded": [(_ours, size, rank, True)],
        "sparkrec": [(_ours, size, rank, False)],
        "mllib": [(_mllib, size, rank, blas) for blas in (NATIVE, JAVA)],
        "implicit, seen excluded": [(_implicit, size, rank)],
    }
    rows = {name: {"system": name, **best(treatment, ways)} for name, ways in contestants.items()}
    title = f"Top {K} of {size.items:,} items for {size.users:,} users, rank {rank}"
    show(title, [*rows.values()], ("system", "blas", "seconds"))
    ours, alike, mllib, implicit = (row["seconds"] for row in rows.values())
    ratios = {"topk/mllib": mllib / ours, "topk/implicit": implicit / ours, "topk_seen_kept/mllib": mllib / alike}
    return {
        "size": [size.users, size.items, size.ratings],
        "rank": rank,
        "runs": [*rows.values()],
        "ratios": {name: round(ratio, 2) for name, ratio in ratios.items()},
    }


def _ours(size: Size, rank: int, exclude: bool, given: Given) -> Row:
    from sparkrec import ALS

    ratings = session(given.threads).read.parquet(str(ratings_folder(size)))
    model = ALS(rank=rank, maxIter=1, implicitPrefs=True, seed=0).fit(ratings)
    seen = ratings if exclude else None
    return {"seconds": given.seconds(lambda: _all_rows(model.recommendForAllUsers(K, exclude=seen)))}


def _mllib(size: Size, rank: int, blas: str, given: Given) -> Row:
    from pyspark.ml.recommendation import ALS

    spark = session(given.threads, blas)
    used = linear_algebra(spark, blas)
    ratings = spark.read.parquet(str(ratings_folder(size)))
    model = ALS(rank=rank, maxIter=1, implicitPrefs=True, seed=0).fit(ratings)
    return {"blas": used, "seconds": given.seconds(lambda: _all_rows(model.recommendForAllUsers(K)))}


def _implicit(size: Size, rank: int, given: Given) -> Row:
    import scipy.sparse
    from implicit.cpu.als import AlternatingLeastSquares

    table = pq.read_table(ratings_folder(size))
    cells = table["rating"].to_numpy(), (table["user"].to_numpy(), table["item"].to_numpy())
    seen = scipy.sparse.csr_matrix(cells, shape=(size.users, size.items))
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(factors=rank, iterations=1, num_threads=given.threads, random_state=0)
        model.fit(seen, show_progress=False)
    everyone = np.arange(size.users)
    return {
        "seconds": given.seconds(lambda: model.recommend(everyone, seen, N=K, filter_already_liked_items=True)),
    }


def _all_rows(frame: Any) -> None:
    frame.write.format("noop").mode("overwrite").save()
