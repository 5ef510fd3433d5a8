"""From interactions to a dataset."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from sparkrec.config.base import Fraction, Name, Settings, StageSettings, TableName
from sparkrec.config.features import FeatureSettings


class ExplicitFeedback(Settings):
    """Ratings as values to predict."""

    kind: Literal["explicit"] = "explicit"
    scale: Literal["identity", "log", "quantile"] = "identity"
    """From counts or weights to ratings: as they are; log(1 + x); or the quantile of x among the user's own, in
    `levels` steps from 1."""
    levels: int = Field(5, ge=2)
    """Steps of scale `quantile`."""


class ImplicitFeedback(Settings):
    """Interactions as preference 1 with a confidence (Hu, Koren and Volinsky 2008, section 4)."""

    kind: Literal["implicit"] = "implicit"
    threshold: float | None = None
    """Rows whose weight is below it are dropped."""
    confidence: Literal["one", "linear", "log"] = "one"
    """c = 1; c = 1 + alpha r; or c = 1 + alpha log(1 + r / epsilon)."""
    alpha: float = Field(1.0, ge=0)
    """How much a weight adds to the confidence."""
    epsilon: float = Field(1.0, gt=0)
    """Scale of the weight r in confidence `log`."""


class LeaveLastOut(Settings):
    """The last interactions of a user are held out. Needs timestamps; ties go by item."""

    kind: Literal["leave_last_out"] = "leave_last_out"
    test: int = Field(1, ge=0)
    """Interactions of each user to test on: the very last ones."""
    validation: int = Field(1, ge=0)
    """Interactions of each user to validate on: those before the test ones."""
    min_train: int = Field(1, ge=1)
    """Users who would keep fewer train interactions give nothing away."""


def instant(text: str) -> datetime:
    """The point in time of an ISO 8601 text; UTC unless it says otherwise."""
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ValueError(f"{text!r} is not an ISO 8601 timestamp, such as 2024-01-31T18:00:00") from None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


class TimeSplit(Settings):
    """Everything from a point in time on is held out."""

    kind: Literal["time"] = "time"
    test_from: str
    """ISO 8601 timestamp (UTC)."""
    validation_from: str | None = None
    """ISO 8601 timestamp (UTC), from which on until `test_from` is the validation split. None: there is none."""

    @model_validator(mode="after")
    def _in_order(self) -> TimeSplit:
        test_from = instant(self.test_from)
        if self.validation_from is not None and instant(self.validation_from) >= test_from:
            raise ValueError(f"{self.validation_from} is not before test_from, {self.test_from}")
        return self


class RecentDays(Settings):
    """The last days of the log are held out, counted back from its latest event: a split by time that moves with it."""

    kind: Literal["recent"] = "recent"
    test: float = Field(7.0, gt=0)
    """Days of the test split, up to the latest event."""
    validation: float = Field(0.0, ge=0)
    """Days before them that are the validation split."""

    def until(self, latest: datetime) -> TimeSplit:
        """The split for a log whose latest event is of that instant."""
        test_from = latest - timedelta(days=self.test)
        validation_from = test_from - timedelta(days=self.validation)
        return TimeSplit(
            test_from=test_from.isoformat(), validation_from=validation_from.isoformat() if self.validation else None
        )


class RatioSplit(Settings):
    """A share of each user's interactions, drawn at random."""

    kind: Literal["ratio"] = "ratio"
    test: Fraction = 0.2
    """Share of a user's interactions to test on."""
    validation: Fraction = 0.1
    """Share of a user's interactions to validate on."""
    seed: int = 0
    """Of the draw."""

    @model_validator(mode="after")
    def _something_is_left(self) -> RatioSplit:
        if self.test + self.validation >= 1:
            raise ValueError(f"test {self.test:g} and validation {self.validation:g} leave nothing to train on")
        return self


class FoldSplit(Settings):
    """One fold of k over all interactions is the test split."""

    kind: Literal["fold"] = "fold"
    folds: int = Field(5, ge=2)
    """Number of folds."""
    fold: int = Field(0, ge=0)
    """Which of them is the test split, from 0."""
    seed: int = 0
    """Of the draw: the folds of one seed are disjoint."""

    @model_validator(mode="after")
    def _fold_exists(self) -> FoldSplit:
        if self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} does not exist among {self.folds}: they count from 0")
        return self


class ColdItems(Settings):
    """A share of the items is new: all their interactions are the test split."""

    kind: Literal["cold_items"] = "cold_items"
    test: float = Field(0.2, gt=0, lt=1)
    """Share of the items."""
    seed: int = 0
    """Of the draw."""


class GivenSplit(Settings):
    """Train and test tables as somebody else split them."""

    kind: Literal["given"] = "given"
    test: TableName
    """Ingested table of test interactions."""
    candidates: str | None = None
    """Context column of the test table: an array of item ids to rank the test item among."""
    validation_table: TableName | None = None
    """Ingested table of validation interactions."""
    validation: Fraction = 0.0
    """Share of each user's train interactions to hold out for tuning."""
    validation_items: int = Field(0, ge=0)
    """Or this many of them."""
    seed: int = 0
    """Of the draw of `validation`."""

    @model_validator(mode="after")
    def _one_validation(self) -> GivenSplit:
        if self.validation_table and (self.validation or self.validation_items):
            raise ValueError("validation_table is the validation split: leave out validation and validation_items")
        return self


Split: TypeAlias = Annotated[
    LeaveLastOut | TimeSplit | RecentDays | RatioSplit | FoldSplit | ColdItems | GivenSplit, Field(discriminator="kind")
]


class SequenceSettings(Settings):
    """What users did, in order, for models that see it. Ties go by item."""

    length: int = Field(50, ge=1)
    """Events that a model sees: the last ones before the one it is to predict."""
    targets: int | None = Field(None, ge=1)
    """None: one sequence of each user, its last `length` + 1 train events, of which each but the first is predicted
    from those before it. A number: windows of `length` events and as many `targets` after them, one event apart, in
    which these are predicted from those (Tang and Wang 2018)."""
    session_gap: float | None = Field(None, gt=0)
    """Seconds of a pause that ends a session: a sequence has no events of two. None: no pause does."""
    ordered: bool = True
    """Whether the order is told by timestamps, which no event may lack. False: it is nothing, which only item2vec with
    `shuffle` takes."""


class PrepareSettings(StageSettings):
    """Turn interactions into a dataset: integer ids, values, splits."""

    dataset: Name
    """What to call the dataset."""
    interactions: TableName = "interactions"
    """Ingested table to read."""
    version: int | None = Field(None, ge=0)
    """Delta version to read. None: the latest, pinned in the manifest."""
    dedup: Literal["last", "sum", "max", "none"] = "last"
    """What becomes of several rows of one user and item. `last` goes by timestamp."""
    event_weights: dict[str, Annotated[float, Field(allow_inf_nan=False)]] | None = None
    """Factor on the rating for each kind of event; 0 drops it, a kind that is not listed is an error."""
    feedback: Annotated[ExplicitFeedback | ImplicitFeedback, Field(discriminator="kind")] = ImplicitFeedback()
    """What an interaction is: a rating to predict, or a sign of interest."""
    min_user_interactions: int = Field(1, ge=1)
    """k-core: users and items with fewer are dropped, again and again until none is left."""
    min_item_interactions: int = Field(1, ge=1)
    """The same for items."""
    split: Split = LeaveLastOut()
    """What is held out, for test and for validation."""
    features: FeatureSettings | None = None
    """What models with features see. None: ids alone."""
    sequences: SequenceSettings | None = None
    """None: models that see the order of events cannot be trained on it."""

    @model_validator(mode="after")
    def _held_out_is_another_table(self) -> PrepareSettings:
        if isinstance(self.split, GivenSplit):
            for key, table in (("test", self.split.test), ("validation_table", self.split.validation_table)):
                if table == self.interactions:
                    raise ValueError(f"split.{key} names the interactions table {table!r} itself")
        return self

    @property
    def has_validation(self) -> bool:
        """Whether the dataset has a validation split."""
        split = self.split
        if isinstance(split, LeaveLastOut | RatioSplit | RecentDays):
            return split.validation > 0
        if isinstance(split, TimeSplit):
            return split.validation_from is not None
        return isinstance(split, GivenSplit) and bool(
            split.validation_table or split.validation or split.validation_items
        )
