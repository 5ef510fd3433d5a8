"""Whether a model that begins with the rows of an earlier one learns sooner: a log that grows in steps of time.

Each step adds the next slice of the log. On what has come so far a model is fitted cold, and warm: from the warm model
of the step before. What counts is how long the warm one takes to reach what the cold one comes to on the validation
rows, beside how long the cold one takes to get there itself.

The training rows of ml-1m-ncf have no timestamps. Most of its users rated in one session, so that the time of a user's
last row, which the test rows have, stands for all: a slice is the users who came in that time, with the items that
they brought. ml-100k goes by the timestamps of its rows: users come back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import functions as F
from rich.console import Console

from bench.data import public
from bench.measure import CORES, Row, show
from sparkrec.config import EvaluateSettings, IngestSettings, PrepareSettings, SparkSettings, TrainSettings
from sparkrec.configfile import validate
from sparkrec.spark.platform.lake import Lake, Run
from sparkrec.spark.platform.session import open_session
from sparkrec.stages.evaluate import evaluate
from sparkrec.stages.ingest import ingest
from sparkrec.stages.prepare import prepare
from sparkrec.stages.train import train

METRIC = "ndcg@10"
TOLERANCE = 0.001
"""By which ALS stops; networks stop early by themselves."""
NEARLY = 0.99
"""Of what the cold model comes to: the best of many measurements is partly luck."""


@dataclass(frozen=True)
class Reached:
    """What a fit came to after so many epochs or iterations, and seconds."""

    turns: int
    seconds: float
    value: float


def compare(worlds: list[str], kinds: list[str], steps: int, folder: Path) -> dict[str, Any]:
    """Fit kinds cold and warm on worlds that grow, and print a table.

    folder  where the lake is, from which it goes on
    """
    spark = open_session(SparkSettings(master=f"local[{CORES}]", memory="3g", shuffle_partitions=CORES))
    lake = Lake(spark, str(folder / "lake"))
    rows: list[Row] = []
    for world in worlds:
        before: dict[str, Run] = {}
        for step, dataset in enumerate(_datasets(world, steps, lake, folder), start=1):
            for kind in kinds:
                cold = _fitted(lake, dataset, kind, None)
                warm = _fitted(lake, dataset, kind, before[kind].reference) if kind in before else cold
                before[kind] = warm[0]
                if warm is not cold:
                    rows.append({"world": world, "step": step, "kind": kind, **_beside(cold[1], warm[1])})
                    rows[-1] |= {"cold_test": _measured(lake, cold[0]), "warm_test": _measured(lake, warm[0])}
                    Console(stderr=True).print(rows[-1])
    columns = [*(name for name in rows[0] if name not in ("cold_test", "warm_test")), "cold_test", "warm_test"]
    show(f"warm: to reach the {METRIC} of a cold fit on the validation rows", rows, columns)
    return {"bench": "warm", "rows": rows, "sums": _sums(rows)}


def _beside(cold: list[Reached], warm: list[Reached]) -> Row:
    """How long both take to what the cold one comes to; None: it is not reached."""
    best = max(each.value for each in cold)
    row: Row = {"cold": best, "warm": max(each.value for each in warm)}
    for name, least in (("", best), ("nearly_", NEARLY * best)):
        for title, of_fit in (("cold", cold), ("warm", warm)):
            first = next((each for each in of_fit if each.value >= least), None)
            row |= {f"{name}{title}_turns": first and first.turns, f"{name}{title}_s": first and first.seconds}
    return row | {"cold_all": cold[-1].turns, "warm_all": warm[-1].turns}


def _sums(rows: list[Row]) -> list[Row]:
    """Of all steps of a kind: how often the warm fit got there, and what it took there, as shares of the cold one's."""
    found = []
    for world, kind in dict.fromkeys((row["world"], row["kind"]) for row in rows):
        mine = [row for row in rows if (row["world"], row["kind"]) == (world, kind)]
        total: Row = {"world": world, "kind": kind, "steps": len(mine)}
        for name in ("", "nearly_"):
            there = [row for row in mine if row[f"{name}warm_turns"]]
            total[f"{name}reached"] = len(there)
            for unit in ("turns", "s"):
                cold, warm = (sum(row[f"{name}{title}_{unit}"] for row in there) for title in ("cold", "warm"))
                total[f"{name}{unit}"] = round(warm / cold, 3) if cold else None
        for title in ("cold", "warm"):
            total[f"{title}_test"] = round(float(np.mean([row[f"{title}_test"] for row in mine])), 4)
        found.append(total)
    show("warm: shares of what a cold fit takes, over all steps", found, [*found[0]])
    return found


def _fitted(lake: Lake, dataset: Run, kind: str, earlier: str | None) -> tuple[Run, list[Reached]]:
    """The model, and what it was on the way."""

    def run(**model: Any) -> Run:
        name = f"{dataset.name}-{kind}"
        raw = {"lake": lake.root, "dataset": dataset.reference, "name": name, "model": {"kind": kind, **model}}
        return train(validate(TrainSettings, {**raw, "warm_start": earlier}, name), lake)

    model = run(tolerance=TOLERANCE) if kind == "als" else run()
    assert model.manifest is not None
    history = model.manifest["facts"]["history"]
    seconds = np.cumsum([each["seconds"] for each in history]).round(2).tolist()
    if kind == "als":  # it does not measure itself
        on_the_way = [run(iterations=turns) for turns in range(1, len(history))]
        values = [_measured(lake, each, "validation") for each in (*on_the_way, model)]
    else:
        values = [each[METRIC] for each in history]
    return model, [Reached(turn, *each) for turn, each in enumerate(zip(seconds, values, strict=True), start=1)]


def _measured(lake: Lake, model: Run, split: str = "test") -> float:
    metric, _, k = METRIC.partition("@")
    raw = {"lake": lake.root, "model": model.reference, "segments": 1, "examples": 0, "split": split}
    measured = evaluate(validate(EvaluateSettings, {**raw, "metrics": [metric], "cutoffs": [int(k)]}, "warm"), lake)
    rows = lake.table("metrics").where((F.col("run") == measured.id) & (F.col("segment") == "all"))
    return float(rows.where(F.col("metric") == metric).collect()[0].value)


def _datasets(world: str, steps: int, lake: Lake, folder: Path) -> Iterator[Run]:
    """The dataset after each slice."""
    table = world.replace("-", "")
    split: dict[str, Any] = {"kind": "leave_last_out", "test": 1, "validation": 1, "min_train": 3}
    if world == "ml-1m-ncf":
        split = {"kind": "given", "test": f"{table}_test", "validation_items": 1}
    for step, slices in enumerate(_slices(world, steps), start=1):
        for name, rows in slices.items():
            path = folder / f"{name}-{step}-of-{steps}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(rows, path)
            raw = {"source": {"path": str(path), "format": "parquet"}, "table": name, "batch": f"{step}-of-{steps}"}
            raw |= {"columns": {"user": "user_id", "item": "item_id", "timestamp": "timestamp"}}
            raw |= {"lake": lake.root, "timestamp_format": "seconds"}
            ingest(validate(IngestSettings, raw, name), lake)
        raw = {"lake": lake.root, "dataset": table, "interactions": table, "split": split}
        yield prepare(validate(PrepareSettings, raw, table), lake)


def _slices(world: str, steps: int) -> Iterator[dict[str, pa.Table]]:
    """New rows (user_id, item_id, timestamp) of each step, by table."""
    table = world.replace("-", "")
    if world == "ml-100k":
        rows = pq.read_table(public("ml-100k/ratings", "warm")).sort_by("timestamp")
        for part in np.array_split(np.arange(len(rows)), steps):
            yield {table: rows.take(part)}
        return
    train_rows, test_rows = (pq.read_table(public(f"{world}/{part}", "warm")) for part in ("train", "test"))
    users, times = (test_rows[name].to_numpy() for name in ("user_id", "timestamp"))
    last = np.zeros(users.max() + 1, np.int64)
    last[users] = times
    train_rows = train_rows.append_column("timestamp", pa.array(last[train_rows["user_id"].to_numpy()]))
    for part in np.array_split(users[np.argsort(times)], steps):
        mine = pa.array(part)
        some = (each.filter(pa.compute.is_in(each["user_id"], mine)) for each in (train_rows, test_rows))
        yield dict(zip((table, f"{table}_test"), some, strict=True))
