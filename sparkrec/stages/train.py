"""Fit one model to one prepared dataset and publish it under a run id."""

from __future__ import annotations

import logging
from typing import Any

from sparkrec import storage
from sparkrec.config import NetworkSettings, TrainSettings
from sparkrec.errors import InputError, TrainError
from sparkrec.spark.dataset import Dataset
from sparkrec.spark.lake import Lake, Run
from sparkrec.stages.checks import check_fit, prepared_as
from sparkrec.stages.networks import check_packages
from sparkrec.stages.planned import Planned
from sparkrec.stages.registry import fit

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
    return pinned


def open_run(settings: TrainSettings, lake: Lake) -> Run:
    """The run of these settings."""
    pinned = inputs(settings, lake)
    name = settings.name or f"{pinned['dataset'].partition('@')[0]}-{settings.model.kind}"
    return lake.open_run("train", name, settings, pinned)


def plan(settings: TrainSettings, lake: Lake) -> Planned:
    """What it would read and write."""
    return Planned.of(open_run(settings, lake), lake, ["users", "items"])


def train(settings: TrainSettings, lake: Lake) -> Run:
    """Fit, save, publish; a finished run is found again, an unfinished one resumes from its last snapshot."""
    run = open_run(settings, lake)
    pinned = run.inputs
    dataset = Dataset.open(lake, pinned["dataset"])
    if run.finished:
        log.info("model %s is there already", run.reference)
        return run
    observed = dataset.observed(settings.include_validation)
    if observed.isEmpty():
        raise TrainError(f"dataset {dataset.reference} has no train rows to fit a model to. Prepare it again.")
    log.info("fitting %s to %s", settings.model.kind, dataset.reference)
    scratch = f"{run.path}/scratch"
    more = {"start": _start(pinned, lake)} if "start_from" in pinned else {}
    run = fit(settings.model, dataset, observed, seed=settings.seed, scratch=scratch, **more).save(run)
    storage.delete(scratch)
    log.info("model %s is in %s", run.reference, run.path)
    return run


def _start(pinned: dict[str, Any], lake: Lake) -> dict[str, str]:
    """Folders of the models to start from, by kind."""
    folders = {}
    for reference in pinned["start_from"]:
        run = lake.finished_run("train", reference)
        if run.inputs["dataset"] != pinned["dataset"]:
            found, expected = run.inputs["dataset"], pinned["dataset"]
            raise InputError(f"start_from: {reference} was fitted to {found}, expected {expected}: fit it again")
        folders[run.settings["model"]["kind"]] = run.path
    return folders
