"""One user at a time without Spark: an exported model beside `implicit`, on the same vectors, with one thread each.

The ratings are those of `bench als`, of 138 thousand users, and tell what each has seen; vectors are random, since an
answer takes as long with any. Ours reads mapped files, `implicit` has arrays and a sparse matrix in memory.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from bench.measure import Given, Row, Treatment, best, show
from bench.ratings import Size, ratings_folder
from bench.spark import session

K, ASKED, LENGTH = 10, 3000, 145
"""Items of a list, questions, and items of a history: as many as a user has rated on average."""


def compare(size: Size, rank: int, treatment: Treatment) -> dict[str, Any]:
    """Export, ask both in turn and print a table."""
    ratings_folder(size)
    alone = Treatment(treatment.warm_up, treatment.runs, (1,))
    with tempfile.TemporaryDirectory() as folder:
        told = best(Treatment(0, 1, (2,)), [(_export, size, rank, folder)])
        rows = {
            "sparkrec, users": best(alone, [(_ours, size, folder, "users")], by="p50_ms"),
            "sparkrec, histories": best(alone, [(_ours, size, folder, "histories")], by="p50_ms"),
            "implicit, users": best(alone, [(_implicit, size, rank, "users")], by="p50_ms"),
            "implicit, histories": best(alone, [(_implicit, size, rank, "histories")], by="p50_ms"),
        }
    named = [{"system": name, **row} for name, row in rows.items()]
    columns = ("system", "p50_ms", "p99_ms", "cpu_p99_ms", "load_s", "rss_mb", "private_mb")
    show(f"Top {K} of {size.items:,} items for one of {size.users:,} users, rank {rank}", named, columns)
    ratios = {
        f"{what}/implicit": round(rows[f"implicit, {what}"]["p50_ms"] / rows[f"sparkrec, {what}"]["p50_ms"], 2)
        for what in ("users", "histories")
    }
    return {
        "size": [size.users, size.items, size.ratings],
        "rank": rank,
        "export": told,
        "runs": named,
        "ratios": ratios,
    }


def _vectors(size: Size, rank: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    users, items = (rng.normal(0, rank**-0.25, (n, rank)).astype(np.float32) for n in (size.users, size.items))
    return users, items


def _users(size: Size) -> list[int]:
    return [int(each) for each in np.random.default_rng(1).choice(size.users, ASKED)]


def _histories(size: Size) -> list[Any]:
    rng = np.random.default_rng(2)
    return [np.sort(rng.choice(size.items, LENGTH, replace=False)) for _ in range(ASKED)]


def _export(size: Size, rank: int, folder: str, given: Given) -> Row:
    """The folder, by the code that `sparkrec export` calls."""
    from sparkrec.spark.algorithms.als.settings import AlsSettings
    from sparkrec.spark.data.dataset import Dataset
    from sparkrec.spark.model.export import export
    from sparkrec.spark.model.fitted import Model
    from sparkrec.spark.model.rows import list_column
    from sparkrec.spark.platform.few import frame_of, from_files

    spark = session(given.threads)
    tables: dict[str, Any] = {"train": _train(spark, size, folder)}
    for side, rows in zip(("user", "item"), _vectors(size, rank), strict=True):
        every = np.arange(len(rows))
        index = pa.nulls(len(rows), pa.list_(pa.int32()))
        vectors = pa.table({side: every, "index": index, "value": list_column(rows)})
        names = pa.array([f"{side}-{each}" for each in every])
        for name, table in (
            (f"{side}_rows", vectors),
            (f"{side}s", pa.table({side: every, f"{side}_id": names, "train_count": np.ones(len(rows), np.int64)})),
        ):
            path = Path(folder) / name
            path.mkdir()
            pq.write_table(table, path / "part.parquet")
            tables[name] = from_files(spark, str(path))
    manifest = {"settings": {"feedback": {"kind": "implicit"}}}
    train, none = tables["train"], frame_of(spark, pa.table({"user": [0], "item": [0]}).slice(0, 0))
    dataset = Dataset("random@0", folder, manifest, train, none, none, tables["users"], tables["items"])
    settings = AlsSettings(
        rank=rank,
        regularization=0.01,
        regularization_exponent=1.0,
        unobserved_weight=0.1,
        propensity_exponent=0.0,
        biases=False,
    )
    model = Model(tables["user_rows"], tables["item_rows"], rank, "dense", "dense", settings=settings)
    before = time.perf_counter()
    export(model, dataset, f"{folder}/model", reference="random@0")
    seconds = time.perf_counter() - before
    spark.stop()
    written = sum(path.stat().st_size for path in (Path(folder) / "model").rglob("*.npy"))
    return {"seconds": seconds, "folder_mb": round(written / 1e6, 1)}


def _train(spark: Any, size: Size, folder: str) -> Any:
    """The ratings as `prepare` would have written them."""
    from sparkrec.spark.platform.few import from_files

    (Path(folder) / "train").mkdir()
    for path in sorted(ratings_folder(size).glob("*.parquet")):
        ids = pq.read_table(path, columns=["user", "item"])
        ones = pa.array(np.ones(len(ids), np.float32))
        table = ids.cast(pa.schema([("user", pa.int64()), ("item", pa.int64())]))
        table = table.append_column("value", ones).append_column("confidence", ones)
        table = table.append_column("timestamp", pa.nulls(len(ids), pa.timestamp("us", "UTC")))
        pq.write_table(table, Path(folder) / "train" / path.name)
    return from_files(spark, f"{folder}/train")


def _ours(size: Size, folder: str, what: str, given: Given) -> Row:
    before = time.perf_counter()
    from sparkrec import ExportedModel

    model = ExportedModel.load(f"{folder}/model")
    loaded = time.perf_counter() - before
    if what == "users":
        names = [[f"user-{user}"] for user in _users(size)]
        return _measured(loaded, given, lambda each: model.recommend(each, k=K), names)
    told = [[[f"item-{item}" for item in history]] for history in _histories(size)]
    return _measured(loaded, given, lambda each: model.recommend(histories=each, k=K), told)


def _implicit(size: Size, rank: int, what: str, given: Given) -> Row:
    before = time.perf_counter()
    import scipy.sparse
    from implicit.cpu.als import AlternatingLeastSquares

    table = pq.read_table(ratings_folder(size), columns=["user", "item"])
    cells = np.ones(len(table), np.float32), (table["user"].to_numpy(), table["item"].to_numpy())
    seen = scipy.sparse.csr_matrix(cells, shape=(size.users, size.items))
    del table, cells
    model = AlternatingLeastSquares(factors=rank, num_threads=1)
    model.user_factors, model.item_factors = _vectors(size, rank)
    loaded = time.perf_counter() - before
    if what == "users":
        return _measured(loaded, given, lambda user: model.recommend(user, seen[user], N=K), _users(size))

    def row(history: Any) -> Any:
        cells = np.ones(LENGTH, np.float32), (np.zeros(LENGTH, np.int32), history)
        return scipy.sparse.csr_matrix(cells, shape=(1, size.items))

    return _measured(
        loaded,
        given,
        lambda history: model.recommend(0, row(history), N=K, recalculate_user=True),
        _histories(size),
    )


def _measured(loaded: float, given: Given, ask: Callable[[Any], Any], questions: Sequence[Any]) -> Row:
    """Milliseconds of each question, after some that do not count, and what the process holds then; `cpu` is without
    the time for which others had the core."""
    for each in questions[: ASKED // 10 * given.warm_up]:
        ask(each)
    passed, worked = [], []
    for _ in range(given.runs):
        for each in questions:
            before, before_work = time.perf_counter(), time.thread_time()
            ask(each)
            worked.append(1e3 * (time.thread_time() - before_work))
            passed.append(1e3 * (time.perf_counter() - before))
    memory = psutil.Process().memory_full_info()
    p50, p99 = np.percentile(passed, [50, 99]).tolist()
    return {
        "p50_ms": p50,
        "p99_ms": p99,
        "cpu_p99_ms": float(np.percentile(worked, 99)),
        "load_s": loaded,
        "rss_mb": round(memory.rss / 1e6, 1),
        "private_mb": round(memory.uss / 1e6, 1),
    }
