"""A night on a log of a catalogue's size to which a day has been added: seconds by step, and what of them is training.

The ratings of `bench.ratings` are put into an order by chance, one each few milliseconds, so that they take two hundred
days. All but the last days are there before the first night; each later night finds a hundredth more of them in the
folder that it follows. Each night ends with lists of every user that are served.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from bench.measure import CORES, Row, show
from bench.ratings import SIZES, ratings_folder
from sparkrec.config import RetrainSettings, SparkSettings
from sparkrec.configfile import validate
from sparkrec.spark.platform.lake import Lake
from sparkrec.spark.platform.session import open_session
from sparkrec.stages.retraining.retrain import retrain

DAYS, HELD_OUT = 200, 4
START = 1_700_000_000
SHARE = 0.01
"""Of the log, which comes with each night after the first."""


def compare(size: str, kind: str, nights: int, cold_every: int, folder: Path) -> dict[str, Any]:
    """Run nights of a kind of model on a log that grows, and print seconds by step.

    folder  where the log and the lake are; what an earlier run has left there is deleted
    """
    shutil.rmtree(folder, ignore_errors=True)
    log = folder / "log"
    log.mkdir(parents=True)
    spark = open_session(SparkSettings(master=f"local[{CORES}]", memory="8g", shuffle_partitions=2 * CORES))
    lake = Lake(spark, str(folder / "lake"))
    rows: list[Row] = []
    for night, part in enumerate(_parts(size, nights)):
        pq.write_table(part, log / f"night-{night}.parquet")
        found = retrain(_settings(folder, kind, cold_every), lake)
        rows.append({**found.seconds, "seconds": (seconds := sum(found.seconds.values()))})
        rows[-1]["not_training"] = 1 - found.seconds["train"] / seconds
        Console(stderr=True).print(rows[-1], found.line())
    first, *later = rows
    medians = {step: median(row.get(step, 0.0) for row in later) for row in later for step in row}
    told = [{"nights": "the first", **first}, {"nights": f"median of {nights} later ones", **medians}]
    show(f"Nights of {kind} on {size}, {SHARE:.0%} new in each later one", told, ["nights", *medians])
    return {"size": size, "kind": kind, "first": first, "later": medians}


def _parts(size: str, nights: int) -> list[pa.Table]:
    """The log before the first night, and what comes with each later one."""
    ratings = pq.read_table(ratings_folder(SIZES[size]))
    order = np.random.default_rng(0).permutation(len(ratings))
    at = (START + np.arange(len(order)) * (DAYS * 86400 / len(order))) * 1e6
    log = ratings.take(order).append_column("time", pa.array(at.astype(np.int64), pa.timestamp("us", "UTC")))
    ends = [round(len(log) * (1 - SHARE * later)) for later in range(nights, -1, -1)]
    return [log.slice(start, end - start) for start, end in zip([0, *ends], ends, strict=False)]


def _settings(folder: Path, kind: str, cold_every: int) -> RetrainSettings:
    raw = {
        "lake": str(folder / "lake"),
        "name": "bench",
        "ingest": [
            {
                "source": {"path": str(folder / "log"), "format": "parquet"},
                "columns": {"user": "user", "item": "item", "rating": "rating", "timestamp": "time"},
                "follow": {},
            }
        ],
        "prepare": {
            "dataset": "bench",
            "feedback": {"kind": "implicit"},
            "split": {"kind": "recent", "test": HELD_OUT},
        },
        "train": {"model": {"kind": kind}},
        "recommend": {"k": 10},
        "gate": {"margin": 0.02},
        "checks": {"age_hours": {"beyond": "off"}},
        "cold_every": cold_every,
    }
    return validate(RetrainSettings, raw, "bench nights")
