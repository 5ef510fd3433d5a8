"""All stages in order, each reading what the one before it published."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sparkrec import config, stages, tables
from sparkrec.configfile import read_yaml, validate, with_environment
from sparkrec.spark.platform.lake import Lake, Run, finished_run
from sparkrec.stages.batches import Batch
from sparkrec.stages.checks import check_measurement
from sparkrec.stages.evaluate import evaluate
from sparkrec.stages.ingest import ingest
from sparkrec.stages.planned import Planned
from sparkrec.stages.prepare import id_tables, prepare
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


@dataclass(frozen=True)
class PlannedPipeline:
    """What each stage would do."""

    stages: dict[str, list[tuple[config.StageSettings, Planned]]]

    def report(self) -> dict[str, Any]:
        """For people."""
        return {
            stage: [{"settings": settings.model_dump(mode="json"), **planned.report()} for settings, planned in entries]
            for stage, entries in self.stages.items()
        }


def check(settings: config.PipelineSettings) -> None:
    """What the settings alone tell, of all stages and of how they fit together."""
    Plan(settings)


def plan(settings: config.PipelineSettings, lake: Lake) -> PlannedPipeline:
    """What every stage would do, as far as it is known before those before it have run."""
    all_of = Plan(settings)
    batches = [(each, stages.ingest.plan(each, lake)) for each in all_of.ingest]
    if all(planned.finished for _, planned in batches):
        dataset = stages.prepare.plan(all_of.prepare, lake)
    else:
        dataset = Planned.later("prepare", all_of.prepare.dataset, lake, id_tables(all_of.prepare.interactions))

    def train_plan(each: config.TrainSettings) -> Planned:
        if not dataset.finished:
            return Planned.later("train", all_of.name_of(each), lake)
        return stages.train.plan(each.model_copy(update={"dataset": dataset.run}), lake)

    trained = [(each, train_plan(each)) for each in all_of.train]
    models = [(all_of.name_of(each), planned.run) for each, planned in trained]
    unfinished = {planned.run for _, planned in trained if not planned.finished}

    def evaluate_plan(each: config.EvaluateSettings) -> Planned:
        if each.model in unfinished:
            return Planned.later("evaluate", each.model.partition("@")[0], lake, [tables.METRICS.name])
        return stages.evaluate.plan(each, lake)

    def recommend_plan(each: config.RecommendSettings) -> Planned:
        if each.model in unfinished or (each.retrieve and each.retrieve.model in unfinished):
            return Planned.later("recommend", each.model.partition("@")[0], lake, [each.table])
        return stages.recommend.plan(each, lake)

    recommended = all_of.recommendation(models)
    return PlannedPipeline(
        {
            "ingest": list(batches),
            "prepare": [(all_of.prepare, dataset)],
            "train": list(trained),
            "evaluate": [(each, evaluate_plan(each)) for each in all_of.evaluations(models)],
            "recommend": [(recommended, recommend_plan(recommended))] if recommended else [],
        }
    )


def run(settings: config.PipelineSettings, lake: Lake) -> PipelineResult:
    """Run every stage; recommendations come from the first model in `train`, unless `recommend` names another."""
    plan = Plan(settings)
    batches = [ingest(each, lake) for each in plan.ingest]
    dataset = prepare(plan.prepare, lake)
    trained = [train(each.model_copy(update={"dataset": dataset.reference}), lake) for each in plan.train]
    models = [(each.name, each.reference) for each in trained]
    evaluations = [evaluate(each, lake) for each in plan.evaluations(models)]
    recommended = plan.recommendation(models)
    return PipelineResult(batches, dataset, trained, evaluations, recommend(recommended, lake) if recommended else None)


_NOT_SAID = "not-said@000000000000"
"""Stands for the model of an entry that names none."""


class Plan:
    """The settings of every stage, all validated, and known to fit together, before the first one runs."""

    def __init__(self, settings: config.PipelineSettings):
        self._settings = settings
        self.ingest = [self._stage(config.IngestSettings, each, "ingest") for each in settings.ingest]
        self.prepare = self._stage(config.PrepareSettings, settings.prepare, "prepare")
        named = {"dataset": self.prepare.dataset}
        self.train = [self._stage(config.TrainSettings, each, "train", named) for each in settings.train]
        of_model = {"model": _NOT_SAID}
        self._evaluate = [
            self._stage(config.EvaluateSettings, each, "evaluate", of_model) for each in settings.evaluate or []
        ]
        self._recommend = None
        if settings.recommend is not None:
            self._recommend = self._stage(config.RecommendSettings, settings.recommend, "recommend", of_model)
        self._check()

    def _check(self) -> None:
        dataset = self.prepare.dataset
        for each in self.train:
            stages.train.check(each)
            each.model.check_dataset(self.prepare, dataset)
        trained = {self.name_of(each): each for each in self.train}
        for evaluation in self.evaluations([(name, name) for name in trained]):
            stages.evaluate.check(evaluation)
            if measured := trained.get(evaluation.model):
                check_measurement(
                    evaluation, measured.model, measured.include_validation, self.prepare, evaluation.model, dataset
                )
            else:
                finished_run(self._settings.files, "train", evaluation.model)
        recommended = self.recommendation([(name, name) for name in trained])
        if recommended is None:
            return
        for model in (recommended.model, *([recommended.retrieve.model] if recommended.retrieve else [])):
            if model not in trained:
                finished_run(self._settings.files, "train", model)

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

    def name_of(self, each: config.TrainSettings) -> str:
        """What the model of an entry of `train` is called."""
        return each.name or f"{self.prepare.dataset}-{each.model.kind}"

    def evaluations(self, models: Sequence[tuple[str, str]]) -> list[config.EvaluateSettings]:
        """Of each model, the entries that name it or none; then those that name another one.

        models  names and references
        """
        known = {name for name, _ in models}
        own = [
            each.model_copy(update={"model": reference})
            for name, reference in models
            for each in self._evaluate
            if each.model in (_NOT_SAID, name)
        ]
        return own + [each for each in self._evaluate if each.model != _NOT_SAID and each.model not in known]

    def recommendation(self, models: Sequence[tuple[str, str]]) -> config.RecommendSettings | None:
        """Whose models are pinned; of the first of `models` if the entry names none."""
        settings, pinned = self._recommend, dict(models)
        if settings is None:
            return None
        model = models[0][1] if settings.model == _NOT_SAID else pinned.get(settings.model, settings.model)
        first = settings.retrieve
        if first is not None:
            first = first.model_copy(update={"model": pinned.get(first.model, first.model)})
        return settings.model_copy(update={"model": model, "retrieve": first})
