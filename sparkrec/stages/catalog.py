"""The stages by name, for the command line and for `run`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sparkrec import config
from sparkrec.spark.platform.lake import Lake
from sparkrec.stages import evaluate, ingest, pipeline, prepare, recommend, train, tune
from sparkrec.stages.planned import Planned
from sparkrec.stages.retraining import retrain


@dataclass(frozen=True)
class Stage:
    """One stage: its settings, what they alone tell to be wrong, what it would do, and doing it."""

    settings: type[config.StageSettings]
    check: Callable[[Any], None]
    """Needs no session."""
    plan: Callable[[Any, Lake], Planned | pipeline.PlannedPipeline]
    run: Callable[[Any, Lake], Any]
    exit_code: Callable[[Any], int] = lambda _: 0
    """Of what came of it."""
    not_begun: Callable[[Any, Exception], None] = lambda *_: None
    """Told of the error where there is no lake to run it on."""


def _nothing_more(settings: config.StageSettings) -> None:
    """What can be told is told by the validation."""


STAGES = {
    "ingest": Stage(config.IngestSettings, _nothing_more, ingest.plan, ingest.ingest),
    "prepare": Stage(config.PrepareSettings, _nothing_more, prepare.plan, prepare.prepare),
    "train": Stage(config.TrainSettings, train.check, train.plan, train.train),
    "tune": Stage(config.TuneSettings, tune.check, tune.plan, tune.tune),
    "evaluate": Stage(config.EvaluateSettings, evaluate.check, evaluate.plan, evaluate.evaluate),
    "recommend": Stage(config.RecommendSettings, _nothing_more, recommend.plan, recommend.recommend),
    "run": Stage(config.PipelineSettings, pipeline.check, pipeline.plan, pipeline.run),
    "retrain": Stage(
        config.RetrainSettings,
        retrain.check,
        retrain.plan,
        retrain.retrain,
        lambda night: int(night.exit_code),
        retrain.not_begun,
    ),
}
