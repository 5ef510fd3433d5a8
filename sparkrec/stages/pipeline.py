"""All stages in order, each reading what the one before it published."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sparkrec import config
from sparkrec.configfile import read_yaml, validate, with_environment
from sparkrec.spark.lake import Lake, Run
from sparkrec.stages.evaluate import evaluate
from sparkrec.stages.ingest import Batch, ingest
from sparkrec.stages.prepare import prepare
from sparkrec.stages.recommend import recommend
from sparkrec.stages.train import train

log = logging.getLogger(__name__)

S = TypeVar("S", bound=config.StageSettings)


@dataclass(frozen=True)
class PipelineResult:
    """What each stage published."""

    batches: list[Batch]
    dataset: Run
    models: list[Run]
    evaluations: list[Run]
    recommendations: Run | None

    def report(self) -> dict[str, Any]:
        """For people."""
        return {
            "ingest": [batch.report() for batch in self.batches],
            "prepare": self.dataset.report(),
            "train": [run.report() for run in self.models],
            "evaluate": [run.report() for run in self.evaluations],
            "recommend": self.recommendations.report() if self.recommendations else None,
        }


def inputs(settings: config.PipelineSettings, lake: Lake) -> dict[str, Any]:
    """The settings of every stage, validated: what they read is made on the way."""
    plan = Plan(settings)
    return {
        "ingest": [each.model_dump(mode="json") for each in plan.ingest],
        "prepare": plan.prepare.model_dump(mode="json"),
        "train": [each.model_dump(mode="json") for each in plan.train],
    }


def run(settings: config.PipelineSettings, lake: Lake) -> PipelineResult:
    """Run every stage; recommendations come from the first model in `train`, unless `recommend` names another."""
    plan = Plan(settings)
    batches = [ingest(each, lake) for each in plan.ingest]
    dataset = prepare(plan.prepare, lake)
    models = [train(each.model_copy(update={"dataset": dataset.reference}), lake) for each in plan.train]
    evaluations = [evaluate(each, lake) for model in models for each in plan.evaluations(model.reference)]
    pinned = {model.name: model.reference for model in models}
    recommended = plan.recommendation(pinned, models[0].name)
    return PipelineResult(batches, dataset, models, evaluations, recommend(recommended, lake) if recommended else None)


class Plan:
    """The settings of every stage, all validated before the first one runs."""

    def __init__(self, settings: config.PipelineSettings):
        self._settings = settings
        self.ingest = [self._stage(config.IngestSettings, each, "ingest") for each in settings.ingest]
        self.prepare = self._stage(config.PrepareSettings, settings.prepare, "prepare")
        named = {"dataset": self.prepare.dataset}
        self.train = [self._stage(config.TrainSettings, each, "train", named) for each in settings.train]
        self.evaluations("any")
        self.recommendation({}, "any")

    def _stage(
        self, kind: type[S], given: Mapping[str, object] | str, label: str, filled: Mapping[str, object] = {}
    ) -> S:
        raw = dict(read_yaml(with_environment(given, label)) if isinstance(given, str) else given)
        label = given if isinstance(given, str) else label
        for key, value in filled.items():
            raw.setdefault(key, value)
        raw["lake"] = self._settings.lake
        raw["spark"] = self._settings.spark.model_dump(mode="json")
        return validate(kind, raw, label)

    def evaluations(self, model: str) -> list[config.EvaluateSettings]:
        given = self._settings.evaluate
        return [self._stage(config.EvaluateSettings, each, "evaluate", {"model": model}) for each in given or []]

    def recommendation(self, pinned: Mapping[str, str], default: str) -> config.RecommendSettings | None:
        given = self._settings.recommend
        if given is None:
            return None
        settings = self._stage(config.RecommendSettings, given, "recommend", {"model": default})
        return settings.model_copy(update={"model": pinned.get(settings.model, settings.model)})
