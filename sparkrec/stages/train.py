"""Fit one model to one prepared dataset and publish it under a run id."""

from __future__ import annotations

import logging
from typing import Any

from sparkrec import storage
from sparkrec.config import TrainSettings
from sparkrec.errors import TrainError
from sparkrec.spark.dataset import Dataset
from sparkrec.spark.lake import Lake, Run
from sparkrec.stages.registry import fit

log = logging.getLogger(__name__)


def inputs(settings: TrainSettings, lake: Lake) -> dict[str, Any]:
    """The dataset, pinned."""
    return {"dataset": lake.finished_run("prepare", settings.dataset).reference}


def train(settings: TrainSettings, lake: Lake) -> Run:
    """Fit, save, publish; a finished run is found again, an unfinished one resumes from its last snapshot."""
    pinned = inputs(settings, lake)
    dataset = Dataset.open(lake, pinned["dataset"])
    run = lake.open_run("train", settings.name or f"{dataset.name}-{settings.model.kind}", settings, pinned)
    if run.finished:
        log.info("model %s is there already", run.reference)
        return run
    observed = dataset.observed(settings.include_validation)
    if observed.isEmpty():
        raise TrainError(f"dataset {dataset.reference} has no train rows to fit a model to. Prepare it again.")
    log.info("fitting %s to %s", settings.model.kind, dataset.reference)
    scratch = f"{run.path}/scratch"
    run = fit(settings.model, dataset, observed, seed=settings.seed, scratch=scratch).save(run)
    storage.delete(scratch)
    log.info("model %s is in %s", run.reference, run.path)
    return run
