"""The stages by name, for the command line and for `run`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sparkrec import config
from sparkrec.spark.lake import Lake
from sparkrec.stages import evaluate, ingest, pipeline, prepare, recommend, train, tune


@dataclass(frozen=True)
class Stage:
    """One stage: its settings, what it does, and what it would read."""

    settings: type[config.StageSettings]
    run: Callable[[Any, Lake], Any]
    inputs: Callable[[Any, Lake], dict[str, Any]]


STAGES = {
    "ingest": Stage(config.IngestSettings, ingest.ingest, ingest.inputs),
    "prepare": Stage(config.PrepareSettings, prepare.prepare, prepare.inputs),
    "train": Stage(config.TrainSettings, train.train, train.inputs),
    "tune": Stage(config.TuneSettings, tune.tune, tune.inputs),
    "evaluate": Stage(config.EvaluateSettings, evaluate.evaluate, evaluate.inputs),
    "recommend": Stage(config.RecommendSettings, recommend.recommend, recommend.inputs),
    "run": Stage(config.PipelineSettings, pipeline.run, pipeline.inputs),
}
