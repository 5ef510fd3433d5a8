"""Evaluations that a page is about, as the lake has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sparkrec import storage
from sparkrec.config.base import Reference
from sparkrec.errors import ConfigError, InputError
from sparkrec.spark.platform.lake import Run, finished_run
from sparkrec.stages.reporting.rendering import Line


@dataclass(frozen=True)
class Evaluation(Line):
    """A run and its figures. The page calls it by its name, or `name@id` where two runs have one name."""

    run: Run
    about: dict[str, Any]
    training: list[dict[str, Any]]
    """A row for each epoch or iteration of the model's training."""
    seconds: float | None
    """What the fit of the model took."""
    size: int
    """Bytes of the model."""

    @property
    def users(self) -> int:
        return int(self.about["segments"]["all"]["users"])

    def value(self, name: str, segment: str = "all") -> float | None:
        return self.about["segments"].get(segment, {}).get(name)  # type: ignore[no-any-return]

    def interval(self, name: str, segment: str = "all") -> list[float] | None:
        return self.about["intervals"].get(segment, {}).get(name)  # type: ignore[no-any-return]


def open_runs(lake: str, references: Sequence[str]) -> list[Evaluation]:
    """Finished evaluations, `name` or `name@id`.

    Raises InputError where there is none of that name, ConfigError for what is no name.
    """
    found = [_finished(lake, reference) for reference in references]
    alike = Counter(run.name for run in found)
    evaluations = []
    for at, run in enumerate(found):
        about = storage.read_json(f"{run.path}/metrics.json")
        if about is None or "intervals" not in about:
            raise InputError(
                f"evaluation {run.reference} was made by an earlier version: run `sparkrec evaluate` again"
            )
        trained = finished_run(lake, "train", run.inputs["model"])
        manifest = trained.manifest or {}
        evaluations.append(
            Evaluation(
                **vars(Line.numbered(at, run.name if alike[run.name] == 1 else run.reference)),
                run=run,
                about=about,
                training=manifest.get("facts", {}).get("history", []),
                seconds=manifest.get("seconds"),
                size=storage.size(trained.path),
            )
        )
    return evaluations


def _finished(lake: str, reference: str) -> Run:
    try:
        TypeAdapter(Reference).validate_python(reference)
    except ValidationError:
        raise ConfigError(f"run: found {reference!r}, expected the name of an evaluation, or name@id") from None
    return finished_run(lake, "evaluate", reference)
