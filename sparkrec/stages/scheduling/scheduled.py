"""What a scheduler is to run, and when: all that the four ways of writing it down have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sparkrec.config import RetrainSettings, ScheduleSettings, declaration
from sparkrec.configfile import load
from sparkrec.errors import ConfigError
from sparkrec.secrets import is_secret, masked
from sparkrec.stages.pipeline import Plan
from sparkrec.stages.retraining.retrain import pipeline_of

_GRACE = 60
"""Seconds from SIGTERM to SIGKILL, once a run has taken too long."""


@dataclass(frozen=True)
class Scheduled:
    """The nights of one config."""

    name: str
    schedule: ScheduleSettings
    seconds: int
    """A run that takes longer is ended."""
    master: str
    """Of Spark, where there is no session yet."""
    trained_by_torch: bool
    config: str
    overrides: tuple[str, ...]
    files: dict[str, str]
    """The YAML files that the config names, by the keys of their settings."""
    directory: str
    """Where a run starts, and relative paths of the config begin."""
    program: str
    """The command line."""

    @property
    def arguments(self) -> list[str]:
        """Of the stage."""
        return ["--config", self.config, *self.overrides]

    @property
    def head(self) -> str:
        """A comment for whoever finds the file."""
        return (
            f"# Nights of {self.name}, rendered by `sparkrec schedule render` from {self.config}: change that, and "
            "render it again."
        )

    def in_time(self, *command: str) -> list[str]:
        """A command that is ended where it takes longer than it may: then with exit code 124."""
        return ["timeout", "-k", str(_GRACE), str(self.seconds), *command]


def scheduled(config: str, overrides: Sequence[str], directory: str, program: str) -> Scheduled:
    """What a config and overrides schedule. Raises ConfigError where they say not when, or would give a secret away."""
    settings = load(RetrainSettings, config, overrides)
    if settings.schedule is None:
        raise ConfigError(
            f"{config} does not say when it is to run. Set schedule, such as schedule: {{cron: 0 3 * * *}}."
        )
    for text in (config, directory, program, *overrides):
        if not text.isprintable():
            raise ConfigError(f"found {text!r}, expected a text of one line without control characters.")
    for key, _, value in (each.partition("=") for each in overrides):
        if (is_secret(key) or masked(value) != value) and "${" not in value:
            raise ConfigError(
                f"{key} is a secret, which others could read in the file. Name a variable instead: {key}=${{NAME}}."
            )
    model = Plan(pipeline_of(settings)).train[0].model
    return Scheduled(
        name=settings.name,
        schedule=settings.schedule,
        seconds=math.ceil(settings.deadline_hours * 3600),
        master=settings.spark.master,
        trained_by_torch=declaration(model.kind).fit is None,
        config=config,
        overrides=tuple(each for each in overrides if not each.startswith("schedule.")),
        files=_files(settings),
        directory=directory,
        program=program,
    )


def _files(settings: RetrainSettings) -> dict[str, str]:
    entries: dict[str, object] = {f"ingest.{number}": each for number, each in enumerate(settings.ingest)}
    entries |= {key: getattr(settings, key) for key in ("prepare", "train", "recommend")}
    return {key: each for key, each in entries.items() if isinstance(each, str)}
