"""What the settings of one stage must be for those of another: told before either reads data."""

from __future__ import annotations

from sparkrec.config import EvaluateSettings, GivenCandidates, GivenSplit, ModelSettings, PrepareSettings
from sparkrec.errors import ConfigError, EvaluateError
from sparkrec.spark.platform.lake import Lake


def prepared_as(lake: Lake, dataset: str) -> PrepareSettings:
    """The settings of a finished dataset."""
    settings = lake.finished_run("prepare", dataset).settings
    return PrepareSettings.model_validate({**settings, "lake": lake.root})


def check_measurement(
    settings: EvaluateSettings,
    model: ModelSettings,
    include_validation: bool,
    prepared: PrepareSettings,
    trained: str,
    dataset: str,
) -> None:
    """Whether a model can be measured in a way.

    include_validation  whether it was fitted to the validation split, too
    prepared            settings of its dataset
    trained, dataset    what to call the two in the error
    Raises EvaluateError.
    """
    if settings.split == "validation":
        if include_validation:
            raise EvaluateError(
                f"model {trained} was fitted to train and validation together: measured on validation it "
                "would look better than it is. Use split test, or train with include_validation: false."
            )
        if not prepared.has_validation:
            raise EvaluateError(f"dataset {dataset} has no validation split. Use split test, or prepare it with one.")
    split = prepared.split
    if isinstance(settings.protocol, GivenCandidates) and not (isinstance(split, GivenSplit) and split.candidates):
        raise EvaluateError(
            f"dataset {dataset} came without candidates to rank. Use protocol full or sampled, or prepare it "
            "with split.candidates."
        )
    if settings.importance and not model.declaration.sees_fields:
        raise ConfigError(f"importance: model {trained} sees no features. Set it to false, or measure lr, fm, ...")
