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
from rich.console import Console

from bench.data import public
from bench.measure import CORES, Row, show
from sparkrec import storage
from sparkrec.config import IngestSettings, PrepareSettings, SparkSettings, TrainSettings, model_settings
from sparkrec.configfile import validate
from sparkrec.fitting.registry import fit
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.evaluation.model_metrics import measure
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.platform.lake import Lake, Run
from sparkrec.spark.platform.session import open_session
from sparkrec.stages.ingest import ingest
from sparkrec.stages.prepare import prepare
from sparkrec.stages.train import train
from sparkrec.stages.warm_start import read_warm_start

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
    is_candidate: bool
    """Whether the best of all is kept, and not the last."""


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
                cold = _trained(lake, dataset, kind, None)
                if kind not in before:
                    before[kind] = cold
                    continue
                began = before[kind].reference
                warm = before[kind] = _trained(lake, dataset, kind, began)
                beside = _beside(_on_the_way(lake, cold, None), _on_the_way(lake, warm, began))
                rows.append({"world": world, "step": step, "kind": kind, **beside})
                rows[-1] |= {"cold_test": _test(lake, cold), "warm_test": _test(lake, warm)}
                Console(stderr=True).print(rows[-1])
    columns = ("world", "step", "kind", "cold", "warm", "cold_turns", "warm_turns", "cold_s", "warm_s")
    show(
        f"warm: epochs or iterations, and seconds, to the {METRIC} of a cold fit on the validation rows", rows, columns
    )
    return {"bench": "warm", "rows": rows, "sums": _sums(rows)}


def _beside(cold: list[Reached], warm: list[Reached]) -> Row:
    """How long both take to what the cold model comes to; one that does not get there takes all of its time."""
    row: Row = {"cold": _kept(cold), "warm": _kept(warm)}
    for name, least in (("", row["cold"]), ("nearly_", NEARLY * row["cold"])):
        for title, of_fit in (("cold", cold), ("warm", warm)):
            first = next((each for each in of_fit if each.value >= least), None)
            taken = first or of_fit[-1]
            row |= {f"{name}{title}_turns": taken.turns, f"{name}{title}_s": taken.seconds}
            row[f"{name}{title}_reached"] = first is not None
    return row | {f"{title}_all": of_fit[-1].turns for title, of_fit in (("cold", cold), ("warm", warm))}


def _kept(fit: list[Reached]) -> float:
    """The value of the model: of the best epoch, or the last iteration."""
    return max(each.value for each in fit) if fit[0].is_candidate else fit[-1].value


def _sums(rows: list[Row]) -> list[Row]:
    """Of all steps of a kind: how often the warm fit got there, and what it took, as a share of the cold one."""
    found = []
    for world, kind in dict.fromkeys((row["world"], row["kind"]) for row in rows):
        mine = [row for row in rows if (row["world"], row["kind"]) == (world, kind)]
        total: Row = {"world": world, "kind": kind, "steps": len(mine)}
        for name in ("", "nearly_"):
            total[f"{name}reached"] = sum(row[f"{name}warm_reached"] for row in mine)
            for unit in ("turns", "s"):
                cold, warm = (sum(row[f"{name}{title}_{unit}"] for row in mine) for title in ("cold", "warm"))
                total[f"{name}{unit}"] = round(warm / cold, 3)
        total["all"] = round(sum(row["warm_all"] for row in mine) / sum(row["cold_all"] for row in mine), 3)
        for title in ("cold_test", "warm_test"):
            total[title] = round(float(np.mean([row[title] for row in mine])), 4)
        found.append(total)
    show("warm: shares of what a cold fit takes, over all steps", found, [*found[0]])
    return found


def _model(kind: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, **({"tolerance": TOLERANCE} if kind == "als" else {}), **more}


def _trained(lake: Lake, dataset: Run, kind: str, earlier: str | None) -> Run:
    name = f"{dataset.name}-{kind}"
    raw = {"lake": lake.root, "dataset": dataset.reference, "name": name, "model": _model(kind), "warm_start": earlier}
    return train(validate(TrainSettings, raw, name), lake)


def _on_the_way(lake: Lake, run: Run, earlier: str | None) -> list[Reached]:
    """What a fit was after each of its epochs or iterations."""
    assert run.manifest is not None
    history, settings = run.manifest["facts"]["history"], run.settings["model"]
    seconds = np.cumsum([each["seconds"] for each in history]).round(2).tolist()
    if METRIC in history[0]:
        return [
            Reached(turn, s, each[METRIC], True) for turn, (s, each) in enumerate(zip(seconds, history, strict=True), 1)
        ]
    dataset = Dataset.open(lake, run.inputs["dataset"])
    values = []
    for turns in range(1, len(history) + 1):  # it does not measure itself
        model = model_settings(_model(settings["kind"], iterations=turns))
        warm_start = read_warm_start(model, dataset, earlier, lake) if earlier else None
        scratch = f"{lake.root}/scratch"
        fitted = fit(model, dataset, seed=0, scratch=scratch, warm_start=warm_start)
        values.append(measure(fitted, dataset, dataset.validation, dataset.train, METRIC))
        storage.delete(scratch)
    return [Reached(turn, *each, False) for turn, each in enumerate(zip(seconds, values, strict=True), 1)]


def _test(lake: Lake, run: Run) -> float:
    dataset = Dataset.open(lake, run.inputs["dataset"])
    return measure(Model.load(lake, run), dataset, dataset.test, dataset.observed(True), METRIC)


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
