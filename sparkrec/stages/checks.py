"""What the settings of one stage must be for those of another: told before either reads data."""

from __future__ import annotations

from typing import Any

from sparkrec.config import (
    EvaluateSettings,
    FeatureSettings,
    FieldNetworkSettings,
    GivenCandidates,
    GivenSplit,
    LeaveLastOut,
    MarkovSettings,
    MultiField,
    NetworkSettings,
    NumericField,
    PrepareSettings,
    RatioSplit,
    SequenceNetworkSettings,
    TimeSplit,
    WideDeepSettings,
)
from sparkrec.errors import ConfigError, EvaluateError, TrainError
from sparkrec.spark.data.dataset import check_sequences
from sparkrec.spark.platform.lake import Lake


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
    Raises ConfigError where it has not the sequences or the fields that the model needs, TrainError where it has no
    validation split to stop by, or the loss shares items among examples that see other features of them.
    """
    if isinstance(model, WideDeepSettings):
        _check_crosses(model, prepared.features or FeatureSettings())
    if isinstance(model, FieldNetworkSettings) and prepared.features and prepared.features.items:
        training = model.training
        shared = training.loss in ("full_softmax", "all_squared") or training.negative_sampling == "batch"
        if shared and prepared.features.items.timestamp:
            raise TrainError(
                "a loss over all items, or the items of a batch, does not fit item features with a timestamp: each "
                "example sees other values. Choose a loss with drawn negatives."
            )
    if isinstance(model, SequenceNetworkSettings | MarkovSettings):
        check_sequences(model, prepared.sequences, dataset)
    if isinstance(model, NetworkSettings) and model.training.stopping is not None and not has_validation(prepared):
        raise TrainError(
            f"training.stopping needs a validation split, and dataset {dataset} has none: prepare it with one, or set "
            "training.stopping to null."
        )


def _check_crosses(model: WideDeepSettings, features: FeatureSettings) -> None:
    """Raise ConfigError where a cross is of a field that may have several values, or that the dataset has not."""
    sides = [side.fields for side in (features.users, features.items) if side]
    fields = [field for listed in (features.context, *sides) for field in listed]
    crossed = {name for cross in model.crosses for name in cross}
    several = {field.title for field in fields if isinstance(field, MultiField)}
    plain = {field.title for field in fields if isinstance(field, NumericField) and field.scale != "buckets"}
    for wrong, why in ((several, "have several values a row"), (plain, "are numbers: give them scale buckets")):
        if found := sorted(crossed & wrong):
            raise ConfigError(f"crosses: {', '.join(found)} {why}; expected fields of one category a row")
    names = ["user", "item", *(field.title for field in fields)]
    if unknown := sorted(crossed.difference(names)):
        raise ConfigError(f"crosses: found no field {', '.join(unknown)} in the dataset, which has {', '.join(names)}")


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
