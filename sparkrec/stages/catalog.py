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


_FUNCTIONS: dict[str, tuple[Callable[[Any, Lake], Any], Callable[[Any, Lake], dict[str, Any]]]] = {
    "ingest": (ingest.ingest, ingest.inputs),
    "prepare": (prepare.prepare, prepare.inputs),
    "train": (train.train, train.inputs),
    "tune": (tune.tune, tune.inputs),
    "evaluate": (evaluate.evaluate, evaluate.inputs),
    "recommend": (recommend.recommend, recommend.inputs),
    "run": (pipeline.run, pipeline.inputs),
}
STAGES = {name: Stage(settings, *_FUNCTIONS[name]) for name, settings in config.STAGES.items()}
