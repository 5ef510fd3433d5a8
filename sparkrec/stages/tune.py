"""Try settings of one model, measure each on data it has not seen, keep the best."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pyspark.sql import functions as F

from sparkrec import storage, tables
from sparkrec.config import Range, TrainSettings, TuneSettings
from sparkrec.configfile import set_key, validate
from sparkrec.errors import ConfigError, TrainError
from sparkrec.progress import track
from sparkrec.secrets import masked
from sparkrec.spark.dataset import Dataset
from sparkrec.spark.lake import Lake, Run
from sparkrec.spark.measuring import measure
from sparkrec.stages.registry import fit

log = logging.getLogger(__name__)

LOWER_IS_BETTER = ("rmse", "mae")


def inputs(settings: TuneSettings, lake: Lake) -> dict[str, Any]:
    """The dataset, pinned."""
    return {"dataset": lake.finished_run("prepare", settings.dataset).reference}


def tune(settings: TuneSettings, lake: Lake) -> Run:
    """Measure every trial, write them to `trials`, and the best one's train config to `settings.best`."""
    pinned = inputs(settings, lake)
    dataset = Dataset.open(lake, pinned["dataset"])
    run = lake.open_run("tune", settings.name or f"{dataset.name}-{settings.model.kind}", settings, pinned)
    if not run.finished:
        run = _search(settings, lake, dataset, run)
    if settings.best:
        assert run.manifest is not None
        config = {"lake": settings.lake, "dataset": settings.dataset, "model": run.manifest["best"]["model"]}
        path = Path(settings.best)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return run


def _search(settings: TuneSettings, lake: Lake, dataset: Dataset, run: Run) -> Run:
    candidates = trials(settings)
    held_out = [replace(part, train=part.train.persist()) for part in parts(settings, dataset)]
    results: list[dict[str, Any]] = []
    for number in track(range(len(candidates)), "tune", 0, len(candidates)):
        model = candidates[number]
        started = time.perf_counter()
        values = [_measure(settings, model, part, f"{run.path}/scratch") for part in held_out]
        row = {
            "trial": number,
            "settings": json.dumps(masked(model)),
            "value": float(np.mean(values)),
            "spread": float(np.std(values)),
            "seconds": time.perf_counter() - started,
        }
        results.append(row)
        changed = {key: _get(model, key) for key in settings.space}
        log.info(
            "tune: trial %s/%s %s: %s %.5f",
            number + 1,
            len(candidates),
            changed,
            settings.metric,
            row["value"],
        )
    for part in held_out:
        part.train.unpersist()
    sign = 1 if settings.metric in LOWER_IS_BETTER else -1
    best = min(results, key=lambda row: sign * row["value"])
    if not math.isfinite(best["value"]):
        raise TrainError(f"no trial has a finite {settings.metric}. Look at the held-out part of {dataset.reference}.")
    now = dt.datetime.now(dt.timezone.utc)
    rows = [
        (run.id, row["trial"], dataset.reference, settings.model.kind, row["settings"], settings.metric,
         row["value"], row["spread"], row["seconds"], now)
        for row in results
    ]  # fmt: skip
    lake.append("trials", lake.spark.createDataFrame(rows, tables.TRIALS.columns), f"trials:{run.id}")
    return run.publish(
        metric=settings.metric,
        best={"value": best["value"], "spread": best["spread"], "model": json.loads(best["settings"])},
        trials=len(results),
    )


def trials(settings: TuneSettings) -> list[dict[str, Any]]:
    """Model settings of each trial, validated, the same for a seed."""
    points: Iterator[tuple[Any, ...]] | list[tuple[Any, ...]]
    if settings.search == "grid":
        for key, values in settings.space.items():
            if isinstance(values, Range):
                raise ConfigError(f"space.{key}: a grid needs a list of values; a range is for search: random.")
        points = itertools.product(*settings.space.values())
    else:
        rng = np.random.default_rng(settings.seed)
        points = [tuple(_draw(rng, each) for each in settings.space.values()) for _ in range(settings.trials)]
    found = []
    for point in points:
        model = settings.model.model_dump(mode="json")
        for key, value in zip(settings.space, point, strict=True):
            set_key(model, key, value)
        train = validate(TrainSettings, {"lake": settings.lake, "dataset": settings.dataset, "model": model}, "space")
        found.append(train.model.model_dump(mode="json"))
    return found


def _draw(rng: np.random.Generator, values: list[Any] | Range) -> Any:
    if isinstance(values, list):
        return values[rng.integers(len(values))]
    if values.log:
        drawn = math.exp(rng.uniform(math.log(values.low), math.log(values.high)))
    else:
        drawn = rng.uniform(values.low, values.high)
    return round(drawn) if values.integer else drawn


def _get(model: dict[str, Any], dotted: str) -> Any:
    value: Any = model
    for part in dotted.split("."):
        value = value[part]
    return value


def parts(settings: TuneSettings, dataset: Dataset) -> list[Dataset]:
    """Datasets whose `validation` is what a trial is measured on: the split itself, or one for each fold."""
    if not settings.folds:
        if dataset.validation.isEmpty():
            raise TrainError(
                f"dataset {dataset.reference} has no validation rows to tune on. "
                "Set `folds` to cross-validate, or prepare it with a validation split."
            )
        return [dataset]
    if settings.folds == 1:
        raise ConfigError("folds: 1 fold leaves nothing to fit; use 0 (the validation split) or at least 2.")
    rows = dataset.observed(include_validation=True)
    fold = F.pmod(F.xxhash64(F.lit(settings.seed), "user", "item", "timestamp"), F.lit(settings.folds))
    return [
        replace(dataset, train=rows.where(fold != number), validation=rows.where(fold == number))
        for number in range(settings.folds)
    ]


def _measure(settings: TuneSettings, model: dict[str, Any], part: Dataset, scratch: str) -> float:
    train = validate(TrainSettings, {"lake": settings.lake, "dataset": settings.dataset, "model": model}, "trial")
    fitted = fit(train.model, part, part.train, seed=settings.seed, scratch=scratch)
    value = measure(fitted, part, truth=part.validation, seen=part.train, metric=settings.metric, clip=settings.clip)
    storage.delete(scratch)
    return value
