"""Which model, fitted to what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sparkrec.config.base import Name, Reference, Settings, Span, StageSettings
from sparkrec.config.model import AnyModel


class TrainSettings(StageSettings):
    """Fit one model to one dataset."""

    dataset: Reference
    """What to fit it to."""
    model: AnyModel
    """Which model, by its `kind`, and its settings."""
    name: Name | None = None
    """What to call it. None: `<dataset>-<kind>`."""
    warm_start: Reference | None = None
    """An earlier model of the same kind and shape, of another dataset of the same interactions: users, items and
    features that it knows begin with what it has learned of them, new ones as they would without it. None: all do."""
    include_validation: bool = False
    """Fit train and validation together: for the last fit, after tuning."""
    seed: int = 0
    """Of all that is drawn: initial values, negatives, the order of examples."""

    @model_validator(mode="after")
    def _stopping_measures_what_is_not_fitted(self) -> TrainSettings:
        if self.include_validation and self.model.needs_validation:
            raise ValueError(
                "training.stopping measures on the validation split, which include_validation fits: set it to null, "
                "and training.epochs to what was best"
            )
        return self


class Range(Settings):
    """Values to draw from at random."""

    low: float
    """Smallest value."""
    high: float
    """Largest value."""
    log: bool = False
    """Whether the logarithm is drawn uniformly, for values of several magnitudes."""
    integer: bool = False
    """Whether to round to whole numbers."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Range:
        if self.low > self.high or (self.log and self.low <= 0):
            least = " above 0, of which there are logarithms, and" if self.log else ""
            raise ValueError(f"found low {self.low:g} and high {self.high:g}, expected low{least} to be high at most")
        return self


class TuneSettings(StageSettings):
    """Try settings of one model and keep the best."""

    dataset: Reference
    """What to fit the trials to."""
    model: AnyModel
    """Where a trial starts; `space` replaces keys of it."""
    space: dict[str, Annotated[list[int | float | str | bool], Field(min_length=1)] | Range]
    """Dotted key of the model's settings to the values to try."""
    search: Literal["grid", "random"] = "grid"
    """grid: every combination of the lists in `space`. random: the model as it is given, then draws from its lists and
    ranges."""
    trials: int = Field(20, ge=1)
    """Number of models that a random search tries, the given one among them."""
    folds: int = Field(0, ge=0)
    """Cross-validate on this many folds of train and validation. 0: fit train, measure on the validation split."""
    metric: str = "ndcg@10"
    """`rmse`, `mae` or a ranking metric with its cutoff; full ranking."""
    exclude_seen: bool = True
    """Whether full ranking leaves out what the user has in the part that is fitted."""
    clip: Span | None = None
    """Clip predicted ratings to this range first."""
    seed: int = 0
    """Of the draws, of the folds and of each fit."""
    name: Name | None = None
    """What to call the run. None: `<dataset>-<kind>`."""
    best: str | None = None
    """Where to write the train config of the best trial (YAML)."""

    @model_validator(mode="after")
    def _can_be_searched(self) -> TuneSettings:
        if self.folds == 1:
            raise ValueError("folds: 1 fold leaves nothing to fit; use 0 (the validation split) or at least 2")
        ranges = [key for key, values in self.space.items() if isinstance(values, Range)]
        if self.search == "grid" and ranges:
            raise ValueError(f"space.{ranges[0]}: a grid needs a list of values; a range is for search: random")
        return self
