"""What the settings of one stage must be for those of another: told before either reads data."""

from __future__ import annotations

from typing import Any

from sparkrec.config import (
    EvaluateSettings,
    FieldNetworkSettings,
    GivenCandidates,
    GivenSplit,
    LeaveLastOut,
    MarkovSettings,
    NetworkSettings,
    PrepareSettings,
    RatioSplit,
    SequenceNetworkSettings,
    TimeSplit,
)
from sparkrec.errors import ConfigError, EvaluateError, TrainError
from sparkrec.spark.dataset import check_sequences
from sparkrec.spark.lake import Lake


def prepared_as(lake: Lake, dataset: str) -> PrepareSettings:
    """The settings of a finished dataset."""
    settings = lake.finished_run("prepare", dataset).settings
    return PrepareSettings.model_validate({**settings, "lake": lake.root})


def has_validation(prepared: PrepareSettings) -> bool:
    """Whether a dataset has a validation split."""
    split = prepared.split
    if isinstance(split, LeaveLastOut | RatioSplit):
        return split.validation > 0
    if isinstance(split, TimeSplit):
        return split.validation_from is not None
    return isinstance(split, GivenSplit) and bool(split.validation_table or split.validation or split.validation_items)


def check_fit(model: Any, prepared: PrepareSettings, dataset: str) -> None:
    """Whether a model (a ModelSettings) can be fitted to a dataset of these settings.

    dataset  what to call it in the error
    Raises ConfigError where it has not the sequences that the model needs, TrainError where it has no validation split
    to stop by.
    """
    if isinstance(model, SequenceNetworkSettings | MarkovSettings):
        check_sequences(model, prepared.sequences, dataset)
    if isinstance(model, NetworkSettings) and model.training.stopping is not None and not has_validation(prepared):
        raise TrainError(
            f"training.stopping needs a validation split, and dataset {dataset} has none: prepare it with one, or set "
            "training.stopping to null."
        )


def check_measurement(
    settings: EvaluateSettings,
    model: Any,
    include_validation: bool,
    prepared: PrepareSettings,
    trained: str,
    dataset: str,
) -> None:
    """Whether a model (a ModelSettings) can be measured in a way.

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
        if not has_validation(prepared):
            raise EvaluateError(f"dataset {dataset} has no validation split. Use split test, or prepare it with one.")
    split = prepared.split
    if isinstance(settings.protocol, GivenCandidates) and not (isinstance(split, GivenSplit) and split.candidates):
        raise EvaluateError(
            f"dataset {dataset} came without candidates to rank. Use protocol full or sampled, or prepare it "
            "with split.candidates."
        )
    if settings.importance and not isinstance(model, FieldNetworkSettings):
        raise ConfigError(f"importance: model {trained} sees no features. Set it to false, or measure lr, fm, ...")
