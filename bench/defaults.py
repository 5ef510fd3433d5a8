"""What a model is worth with no setting given: beside the same model tuned, and beside popularity.

Each kind is trained on each world (a data set, how it is split, and the metric that counts there) with nothing but its
name; then with the settings of `conf/train/WORLD-KIND.yaml` where that file is, or else with the best of the defaults
and a few random draws, chosen on the validation rows by `sparkrec tune`. Both are measured once on the test rows. A
kind that has to be told something (linear: which attributes) has no defaults to measure.

All is kept in a lake, so that what was done is not done again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pyspark.sql import functions as F
from rich.console import Console

from bench.data import FRAPPE_CONTEXT, public
from bench.measure import CORES, Row, show
from sparkrec.config import (
    EvaluateSettings,
    IngestSettings,
    PrepareSettings,
    SparkSettings,
    TrainSettings,
    TuneSettings,
)
from sparkrec.configfile import validate
from sparkrec.errors import SparkrecError
from sparkrec.kernels.metrics.directions import sign
from sparkrec.spark.platform.lake import Lake
from sparkrec.spark.platform.session import open_session
from sparkrec.stages.evaluate import evaluate
from sparkrec.stages.ingest import ingest
from sparkrec.stages.prepare import prepare
from sparkrec.stages.train import train
from sparkrec.stages.tune import tune
from sparkrec.synthetic import LogShape, draw_events

RANKERS = ("als", "itemknn", "userknn", "ease", "mf", "gmf", "mlp", "neumf")
OF_SEQUENCES = ("item2vec", "markov", "fpmc", "gru4rec", "caser", "sasrec", "bert4rec")
OF_FIELDS = ("lr", "fm", "fwfm", "afm", "nfm", "deepfm", "wide_deep", "dcn")
OF_RATINGS = ("als", "mf", "fm")

Space = dict[str, Any]


def _logarithmic(low: float, high: float) -> dict[str, Any]:
    return {"low": low, "high": high, "log": True}


_OF_NETWORKS: Space = {
    "training.learning_rate": _logarithmic(0.001, 0.3),
    "training.item_l2": _logarithmic(1e-6, 0.03),
    "training.batch": [128, 512, 2048],
    "training.optimizer": ["adagrad", "adam"],
}
_OF_NEIGHBORS: Space = {
    "neighbors": [20, 50, 100, 200, 500],
    "shrinkage": [0.0, 10.0, 100.0],
    "asymmetry": [0.3, 0.5, 0.7],
    "weighting": ["none", "bm25", "tfidf"],
}
_SPACES: dict[str, Space] = {
    "als": {
        "unobserved_weight": _logarithmic(0.001, 1.0),
        "regularization": _logarithmic(0.0005, 0.5),
        "propensity_exponent": [0.0, 0.25, 0.5],
    },
    "itemknn": _OF_NEIGHBORS,
    "userknn": _OF_NEIGHBORS,
    "ease": {"regularization": _logarithmic(10.0, 5000.0)},
    "markov": {"popularity": [0.0, 0.01, 0.03, 0.1, 0.3]},
}
"""What the settings of a kind are drawn from; those of others from `_OF_NETWORKS`."""
_SPACES_OF_RATINGS: dict[str, Space] = {
    "als": {"regularization": _logarithmic(0.02, 5.0), "regularization_exponent": [0.0, 0.5, 1.0]},
}


@dataclass(frozen=True)
class World:
    """A data set, how it is split, and what counts there."""

    tables: dict[str, str | LogShape]
    """File below SPARKREC_DATA, or what is planted, by table; the first one is split."""
    prepare: dict[str, Any]
    kinds: tuple[str, ...] = RANKERS
    metric: str = "ndcg@10"
    columns: dict[str, Any] = field(default_factory=lambda: {"user": "user_id", "item": "item_id"})
    evaluate: dict[str, Any] = field(default_factory=dict)
    simplest: str = "popularity"
    """The kind that all others should beat."""


_IN_TIME = {"user": "user_id", "item": "item_id", "timestamp": "position"}
_LAST_OUT = {"dedup": "none", "split": {"kind": "leave_last_out", "min_train": 1}, "sequences": {"length": 50}}


def _given(test: str) -> dict[str, Any]:
    return {"split": {"kind": "given", "test": test, "validation": 0.1}}


def _planted(users: int, items: int, events: int) -> World:
    shape = LogShape(users=users, items=items, events_per_user=events)
    split = {"split": {"kind": "ratio", "test": 0.1, "validation": 0.1}}
    columns = {"user": "user_id", "item": "item_id", "timestamp": "seconds"}
    return World({f"planted_{users * events}": shape}, split, columns=columns)


WORLDS = {
    "planted-5k": _planted(600, 120, 10),
    "planted-50k": _planted(3_000, 600, 17),
    "planted-2m": _planted(50_000, 8_000, 40),
    "ml-100k": World(
        {"ml100k": "ml-100k/ratings"}, {"split": {"kind": "ratio", "test": 0.1, "validation": 0.1}}, (*RANKERS, "fm")
    ),
    "ml-100k-ratings": World(
        {"ml100k_ratings": "ml-100k/ratings"},
        {"feedback": {"kind": "explicit"}, "split": {"kind": "ratio", "test": 0.2, "validation": 0.1}},
        OF_RATINGS,
        "rmse",
        {"user": "user_id", "item": "item_id", "rating": "rating"},
        {"protocol": None, "ratings": True, "clip": [1.0, 5.0]},
        simplest="bias",
    ),
    "ml-1m-ncf": World(
        {"ml1m": "ml-1m-ncf/train", "ml1m_test": "ml-1m-ncf/test"},
        {"split": {"kind": "given", "test": "ml1m_test", "validation_items": 1}},
    ),
    "lastfm": World({"lastfm": "lastfm/train", "lastfm_test": "lastfm/test"}, _given("lastfm_test")),
    "gowalla": World(
        {"gowalla": "gowalla/train", "gowalla_test": "gowalla/test"}, _given("gowalla_test"), metric="ndcg@20"
    ),
    "beauty": World({"beauty": "beauty/interactions"}, _LAST_OUT, (*RANKERS, *OF_SEQUENCES), columns=_IN_TIME),
    "games": World(
        {"games": "games/interactions"},
        _LAST_OUT,
        (*RANKERS, *OF_SEQUENCES),
        columns=_IN_TIME,
        evaluate={"protocol": {"kind": "sampled", "negatives": 100}},
    ),
    "frappe": World(
        {"frappe": "frappe/train_positives", "frappe_validation": "frappe/validation", "frappe_test": "frappe/test"},
        {
            "dedup": "none",
            "feedback": {"kind": "explicit"},
            "split": {"kind": "given", "test": "frappe_test", "validation_table": "frappe_validation"},
            "features": {"context": [{"kind": "categorical", "column": name} for name in FRAPPE_CONTEXT]},
        },
        OF_FIELDS,
        "auc",
        {"user": "user", "item": "item", "rating": "label", "context": FRAPPE_CONTEXT},
        {"protocol": None, "clicks": True},
    ),
}


def compare(names: Sequence[str], kinds: Sequence[str], trials: int, folder: Path) -> dict[str, Any]:
    """Measure kinds (none: all) on worlds and print a table.

    trials  settings to try for a kind that has none in conf/train; 0: it is not tuned
    folder  where the lake is, and what was generated
    """
    spark = open_session(SparkSettings(master=f"local[{CORES}]", memory="6g", shuffle_partitions=CORES))
    lake = Lake(spark, str(folder / "lake"))
    rows: list[Row] = []
    for name in names:
        world = WORLDS[name]
        _prepared(name, world, lake, folder)
        wanted = [world.simplest, *(kind for kind in world.kinds if not kinds or kind in kinds)]
        for kind in wanted:
            try:
                rows.append(_row(name, world, kind, lake, 0 if kind == world.simplest else trials))
            except SparkrecError as error:
                rows.append({"world": name, "kind": kind, "failed": str(error)[:200]})
            Console(stderr=True).print(rows[-1])
    columns = ("world", "kind", "metric", "default", "tuned", "share", "settings", "seconds", "failed")
    show("defaults: each kind with no setting given, and tuned", rows, columns)
    return {"bench": "defaults", "trials": trials, "rows": rows}


def _row(name: str, world: World, kind: str, lake: Lake, trials: int) -> Row:
    plain, seconds = _measured(name, world, lake, {"kind": kind}, f"{name}-{kind}-default")
    row: Row = {"world": name, "kind": kind, "metric": world.metric, "default": plain, "seconds": seconds}
    tuned = _tuned(name, world, kind, lake, trials)
    if tuned is None:
        return row
    model, whose = tuned
    best, _ = _measured(name, world, lake, model, f"{name}-{kind}-tuned")
    ratio = plain / best if sign(world.metric) > 0 else best / plain
    return row | {"tuned": best, "share": round(ratio, 3), "settings": whose}


def _tuned(name: str, world: World, kind: str, lake: Lake, trials: int) -> tuple[dict[str, Any], str] | None:
    """The best settings that are known of a kind, and whose they are."""
    written = Path("conf/train") / f"{name}-{kind.replace('_', '-')}.yaml"
    if written.exists():
        return yaml.safe_load(written.read_text())["model"], written.name
    if not trials:
        return None
    spaces = _SPACES_OF_RATINGS if world.metric == "rmse" else _SPACES
    search = {"space": spaces.get(kind, _OF_NETWORKS), "search": "random", "trials": trials, "metric": world.metric}
    raw = {"lake": lake.root, "dataset": name, "name": f"{name}-{kind}-search", "model": {"kind": kind}, **search}
    run = tune(validate(TuneSettings, raw, f"{name} {kind}"), lake)
    assert run.manifest is not None
    return run.manifest["best"]["model"], f"best of {trials}"


def _measured(name: str, world: World, lake: Lake, model: dict[str, Any], title: str) -> tuple[float, float]:
    """The metric on the test rows, and the seconds of the fit."""
    raw: dict[str, Any] = {"lake": lake.root, "dataset": name, "name": title, "model": model}
    fitted = train(validate(TrainSettings, raw, title), lake)
    metric, _, k = world.metric.partition("@")
    more: dict[str, Any] = {"metrics": [metric], "cutoffs": [int(k)]} if k else {}
    raw = {"lake": lake.root, "model": fitted.reference, "segments": 1, "examples": 0, **more, **world.evaluate}
    measured = evaluate(validate(EvaluateSettings, raw, title), lake)
    rows = lake.table("metrics").where(F.col("run") == measured.id)
    found = rows.where((F.col("segment") == "all") & (F.col("metric") == metric)).collect()
    values = [row.value for row in found if str(row.k or "") == k]
    assert fitted.manifest is not None
    return float(values[0]), float(fitted.manifest["seconds"])


def _prepared(name: str, world: World, lake: Lake, folder: Path) -> None:
    for table, where in world.tables.items():
        if isinstance(where, LogShape):
            path = _written(where, folder / f"{table}.parquet")
        else:
            path = public(where, "defaults")
        raw = {"source": {"path": path, "format": "parquet"}, "table": table, "columns": world.columns}
        if "timestamp" in world.columns:
            raw["timestamp_format"] = "seconds"
        ingest(validate(IngestSettings, {"lake": lake.root, "batch": "all", **raw}, table), lake)
    raw = {"lake": lake.root, "dataset": name, "interactions": next(iter(world.tables)), "dedup": "max"}
    prepare(validate(PrepareSettings, raw | world.prepare, name), lake)


def _written(shape: LogShape, path: Path) -> str:
    if not path.exists():
        user, item, _, seconds = draw_events(shape)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"user_id": user, "item_id": item, "seconds": seconds}), path)
    return str(path)
