"""Try settings of one model, measure each on data it has not seen, keep the best."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import yaml
from pyspark.sql import DataFrame

from sparkrec import storage, tables
from sparkrec.config import Range, TrainSettings, TuneSettings, model_settings
from sparkrec.configfile import set_key, validate
from sparkrec.errors import TrainError
from sparkrec.fitting.registry import fit
from sparkrec.kernels.metrics.directions import sign
from sparkrec.progress import track
from sparkrec.secrets import masked
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.data.folds import with_folds, without_and_of
from sparkrec.spark.evaluation.model_metrics import check_metric, measure
from sparkrec.spark.in_place import IN_PLACE, computed, cores_for, count, holding, serial_blas
from sparkrec.spark.platform.lake import Lake, Run
from sparkrec.stages.checks import prepared_as
from sparkrec.stages.planned import Planned
from sparkrec.stages.running import once, stage
from sparkrec.stages.train import attribute_digests

log = logging.getLogger(__name__)

_SIDE_BY_SIDE = 4
"""Most trials at a time: each takes some five times the memory of its rows, of which a 64th of the machine's is few."""


def check(settings: TuneSettings) -> None:
    """What the settings alone tell. Raises ConfigError for a metric that is none, a trial that no model takes, or a
    package that is missing."""
    check_metric(settings.metric)
    for model in map(model_settings, trials(settings)):
        model.check_packages()


def inputs(settings: TuneSettings, lake: Lake) -> dict[str, Any]:
    """The dataset, pinned."""
    check(settings)
    dataset = lake.finished_run("prepare", settings.dataset).reference
    prepared = prepared_as(lake, dataset)
    for model in map(model_settings, trials(settings)):
        model.check_dataset(prepared, dataset)
    if not settings.folds and not prepared.has_validation:
        raise TrainError(
            f"dataset {dataset} has no validation split to tune on. Set `folds` to cross-validate, or prepare it with "
            "one."
        )
    return {"dataset": dataset, **attribute_digests(settings.model, lake)}


def open_run(settings: TuneSettings, lake: Lake) -> Run:
    """The run of these settings."""
    pinned = inputs(settings, lake)
    name = settings.name or f"{pinned['dataset'].partition('@')[0]}-{settings.model.kind}"
    return lake.open_run("tune", name, settings, pinned)


def plan(settings: TuneSettings, lake: Lake) -> Planned:
    """What it would read and write."""
    planned = Planned.of(open_run(settings, lake), lake, [], [tables.TRIALS.name])
    return replace(planned, writes=[*planned.writes, settings.best]) if settings.best else planned


@stage()
def tune(settings: TuneSettings, lake: Lake) -> Run:
    """Measure every trial, write them to `trials`, and the best one's train config to `settings.best`."""
    run = _search(settings, lake)
    if settings.best:
        assert run.manifest is not None
        where = settings.model_dump(mode="json", by_alias=True, include={"lake", "dataset"})
        config = {**where, "model": run.manifest["best"]["model"]}
        storage.write(settings.best, yaml.safe_dump(config, sort_keys=False).encode())
    return run


@once(open_run, "search")
def _search(settings: TuneSettings, lake: Lake, run: Run) -> Run:
    dataset = Dataset.open(lake, run.inputs["dataset"])
    candidates = trials(settings)
    results: list[dict[str, Any]] = []
    with holding() as hold:
        held_out = parts(settings, dataset, hold)
        measured = _measured(settings, candidates, held_out, f"{run.path}/scratch")
        for number, found in enumerate(track(measured, "tune", 0, len(candidates))):
            model, values = candidates[number], [each.value for each in found]
            row = {
                "trial": number,
                "settings": json.dumps(masked(model)),
                "value": float(np.mean(values)),
                "spread": float(np.std(values)),
                "seconds": sum(each.seconds for each in found),
            }
            results.append(row)
            changed = {key: _get(model, key) for key in settings.space}
            told = number + 1, len(candidates), changed, settings.metric, row["value"]
            log.info("tune: trial %s/%s %s: %s %.5f", *told)
    best = min(results, key=lambda row: (not math.isfinite(row["value"]), -sign(settings.metric) * row["value"]))
    if not math.isfinite(best["value"]):
        raise TrainError(f"no trial has a finite {settings.metric}. Look at the held-out part of {dataset.reference}.")
    now = dt.datetime.now(dt.timezone.utc)
    rows = [
        (run.id, row["trial"], dataset.reference, settings.model.kind, row["settings"], settings.metric,
         row["value"], row["spread"], row["seconds"], now)
        for row in results
    ]  # fmt: skip
    tried = lake.spark.createDataFrame(rows, tables.TRIALS.columns)
    lake.append(tables.TRIALS.name, tried, f"trials:{run.id}", tables.TRIALS)
    return run.publish(
        metric=settings.metric,
        best={"value": best["value"], "spread": best["spread"], "model": json.loads(best["settings"])},
        trials=len(results),
    )


class _Measured(NamedTuple):
    """What became of a trial on one part."""

    value: float
    seconds: float
    in_place: bool


def _measured(
    settings: TuneSettings, candidates: list[dict[str, Any]], held_out: list[Dataset], scratch: str
) -> Iterator[list[_Measured]]:
    """For one trial after the other what it is on each part; a few at a time, where the first is carried out in place:
    what is left of these cores by a small fit another one takes."""
    todo = [(model, part) for model in candidates for part in held_out]

    def work(at: int) -> _Measured:
        return _measure(settings, *todo[at], f"{scratch}/{at}")

    first = work(0)
    slots = min(cores_for(held_out[0].train.sparkSession), _SIDE_BY_SIDE) if first.in_place else 1
    with ExitStack() as stack:
        rest: Iterator[_Measured] = map(work, range(1, len(todo)))
        if slots > 1:
            stack.enter_context(serial_blas())
            pool = ThreadPoolExecutor(slots, "trial")
            stack.callback(pool.shutdown, cancel_futures=True)
            rest = pool.map(work, range(1, len(todo)))
        found = itertools.chain([first], rest)
        for _ in candidates:
            yield [*itertools.islice(found, len(held_out))]


def trials(settings: TuneSettings) -> list[dict[str, Any]]:
    """Model settings of each trial, validated, the same for a seed."""
    points: Iterator[dict[str, Any]]
    if settings.search == "grid":
        lists = [values for values in settings.space.values() if isinstance(values, list)]
        points = (dict(zip(settings.space, point, strict=True)) for point in itertools.product(*lists))
    else:
        rng = np.random.default_rng(settings.seed)
        drawn = ({key: _draw(rng, of) for key, of in settings.space.items()} for _ in range(settings.trials - 1))
        points = itertools.chain([{}], drawn)
    found = []
    for point in points:
        model = settings.model.model_dump(mode="json")
        for key, value in point.items():
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


def parts(settings: TuneSettings, dataset: Dataset, hold: Callable[[DataFrame], DataFrame]) -> list[Dataset]:
    """Datasets whose `validation` is what a trial is measured on: the split itself, or one for each fold.

    hold  keeps the rows that all of them are read from, as of `in_place.holding`
    """
    dataset = replace(dataset, users=computed("tune", dataset.users), items=computed("tune", dataset.items))
    if not settings.folds:
        if count("tune", dataset.validation) == 0:
            raise TrainError(
                f"dataset {dataset.reference} has no validation rows to tune on. "
                "Set `folds` to cross-validate, or prepare it with a validation split."
            )
        return [replace(dataset, train=hold(dataset.train))]
    marked = hold(with_folds(dataset.observed(include_validation=True), settings.seed, settings.folds))
    split = (without_and_of(marked, fold) for fold in range(settings.folds))
    return [replace(dataset, train=train, validation=own, sequences=None) for train, own in split]


def _measure(settings: TuneSettings, model: dict[str, Any], part: Dataset, scratch: str) -> _Measured:
    started = time.perf_counter()
    train = validate(TrainSettings, {"lake": settings.lake, "dataset": settings.dataset, "model": model}, "trial")
    fitted = fit(train.model, part, seed=settings.seed, scratch=scratch)
    value = measure(
        fitted,
        part,
        truth=part.validation,
        seen=part.train,
        metric=settings.metric,
        clip=settings.clip,
        exclude_seen=settings.exclude_seen,
    )
    storage.delete(scratch)
    return _Measured(value, time.perf_counter() - started, fitted.facts.get("carried_out") == IN_PLACE)
