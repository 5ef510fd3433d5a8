"""Fit one model to one prepared dataset and publish it under a run id."""

from __future__ import annotations

import logging
from typing import Any

from sparkrec import storage
from sparkrec.config import ModelSettings, Parent, TrainSettings, model_settings
from sparkrec.errors import InputError
from sparkrec.fitting.registry import fit, suited
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.platform.digests import source_digest
from sparkrec.spark.platform.lake import Lake, Run
from sparkrec.stages.checks import prepared_as
from sparkrec.stages.planned import Planned
from sparkrec.stages.running import once, stage
from sparkrec.stages.warm_start import read_warm_start

log = logging.getLogger(__name__)


def check(settings: TrainSettings) -> None:
    """What the settings alone tell. Raises ConfigError where a package is missing."""
    settings.model.check_packages()


def inputs(settings: TrainSettings, lake: Lake) -> dict[str, Any]:
    """The dataset and what to start from, pinned."""
    check(settings)
    pinned: dict[str, Any] = {"dataset": lake.finished_run("prepare", settings.dataset).reference}
    settings.model.check_dataset(prepared_as(lake, pinned["dataset"]), pinned["dataset"])
    if settings.warm_start is not None:
        is_pinned = "@" in settings.warm_start  # a finished model is found again though what it began with is gone
        found = settings.warm_start if is_pinned else lake.finished_run("train", settings.warm_start).reference
        pinned["warm_start"] = found
    if parents := settings.model.parents:
        pinned["start_from"] = [lake.finished_run("train", reference).reference for reference in parents]
    return pinned | attribute_digests(settings.model, lake)


def attribute_digests(model: ModelSettings, lake: Lake) -> dict[str, Any]:
    """Digests of the tables of attributes that a model reads beside its dataset, by setting."""
    digests = {}
    for side, attributes in model.attributes.items():
        setting, names = f"model.{side}", [attributes.id, *attributes.columns]
        digests[setting] = source_digest(lake.spark, setting, attributes.source, names)
    return digests


def open_run(settings: TrainSettings, lake: Lake) -> Run:
    """The run of these settings."""
    pinned = inputs(settings, lake)
    name = settings.name or f"{pinned['dataset'].partition('@')[0]}-{settings.model.kind}"
    return lake.open_run("train", name, settings, pinned)


def plan(settings: TrainSettings, lake: Lake) -> Planned:
    """What it would read, choose by the data, and write."""
    run = open_run(settings, lake)
    dataset = Dataset.open(lake, run.inputs["dataset"])
    _, of_data = suited(settings.model, dataset, settings.include_validation)
    if settings.warm_start and not run.finished:
        read_warm_start(settings.model, dataset, run.inputs["warm_start"], lake)
    return Planned.of(run, lake, ["users", "items"], chosen=of_data)


@stage()
@once(open_run, "model")
def train(settings: TrainSettings, lake: Lake, run: Run) -> Run:
    """Fit, save, publish; a finished run is found again, an unfinished one resumes from its last snapshot."""
    pinned = run.inputs
    dataset = Dataset.open(lake, pinned["dataset"])
    log.info("fitting %s to %s", settings.model.kind, dataset.reference)
    scratch = f"{run.path}/scratch"
    warm_start = read_warm_start(settings.model, dataset, pinned["warm_start"], lake) if settings.warm_start else None
    parents = tuple(_parent(reference, pinned["dataset"], lake) for reference in pinned.get("start_from", []))
    fitted = fit(
        settings.model,
        dataset,
        settings.include_validation,
        seed=settings.seed,
        scratch=scratch,
        parents=parents,
        warm_start=warm_start,
    )
    run = fitted.save(run)
    storage.delete(scratch)
    log.info("model %s is in %s", run.reference, run.path)
    return run


def _parent(reference: str, dataset: str, lake: Lake) -> Parent:
    """A model to start from. Raises InputError where it was fitted to another dataset."""
    run = lake.finished_run("train", reference)
    if run.inputs["dataset"] != dataset:
        raise InputError(
            f"start_from: {reference} was fitted to {run.inputs['dataset']}, expected {dataset}: fit it again"
        )
    return Parent(model_settings(run.settings["model"]), run.path)
