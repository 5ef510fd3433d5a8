"""Fit one model to one prepared dataset and publish it under a run id."""

from __future__ import annotations

import logging
from typing import Any

from sparkrec import storage
from sparkrec.config import AttributeSettings, NetworkSettings, TrainSettings, model_settings
from sparkrec.errors import InputError
from sparkrec.fitting.networks import check_packages
from sparkrec.fitting.registry import fit, suited
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.platform.digests import content_digest
from sparkrec.spark.platform.lake import Lake, Run
from sparkrec.spark.platform.sources import read_source, resolved
from sparkrec.stages.checks import check_fit, prepared_as
from sparkrec.stages.planned import Planned
from sparkrec.stages.running import stage

log = logging.getLogger(__name__)


def check(settings: TrainSettings) -> None:
    """What the settings alone tell. Raises ConfigError where a package is missing."""
    if isinstance(settings.model, NetworkSettings):
        check_packages(settings.model)


def inputs(settings: TrainSettings, lake: Lake) -> dict[str, Any]:
    """The dataset and what to start from, pinned."""
    check(settings)
    pinned: dict[str, Any] = {"dataset": lake.finished_run("prepare", settings.dataset).reference}
    check_fit(settings.model, prepared_as(lake, pinned["dataset"]), pinned["dataset"])
    if start := getattr(settings.model, "start_from", []):
        pinned["start_from"] = [lake.finished_run("train", reference).reference for reference in start]
    return pinned | attribute_digests(settings.model, lake)


def attribute_digests(model: Any, lake: Lake) -> dict[str, Any]:
    """Digests of the tables of attributes that a model (a ModelSettings) reads beside its dataset, by setting."""
    digests = {}
    for side in ("users", "items"):
        attributes: AttributeSettings | None = getattr(model, side, None)
        if attributes is not None:
            label, names = f"model.{side}.source {attributes.source.path}", [attributes.id, *attributes.columns]
            source = resolved(read_source(lake.spark, attributes.source), names, label)
            digests[f"model.{side}"] = content_digest(source, names)
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
    return Planned.of(run, lake, ["users", "items"], chosen=of_data)


@stage()
def train(settings: TrainSettings, lake: Lake) -> Run:
    """Fit, save, publish; a finished run is found again, an unfinished one resumes from its last snapshot."""
    run = open_run(settings, lake)
    pinned = run.inputs
    dataset = Dataset.open(lake, pinned["dataset"])
    if run.finished:
        log.info("model %s is there already", run.reference)
        return run
    log.info("fitting %s to %s", settings.model.kind, dataset.reference)
    scratch = f"{run.path}/scratch"
    more = {"parents": _parents(pinned, lake)} if "start_from" in pinned else {}
    fitted = fit(settings.model, dataset, settings.include_validation, seed=settings.seed, scratch=scratch, **more)
    run = fitted.save(run)
    storage.delete(scratch)
    log.info("model %s is in %s", run.reference, run.path)
    return run


def _parents(pinned: dict[str, Any], lake: Lake) -> list[tuple[Any, str]]:
    """Settings (ModelSettings) and folders of the models to start from."""
    parents = []
    for reference in pinned["start_from"]:
        run = lake.finished_run("train", reference)
        if run.inputs["dataset"] != pinned["dataset"]:
            found, expected = run.inputs["dataset"], pinned["dataset"]
            raise InputError(f"start_from: {reference} was fitted to {found}, expected {expected}: fit it again")
        parents.append((model_settings(run.settings["model"]), run.path))
    return parents
