"""From one night to the next: what is trained again, what it takes to replace what is served."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from sparkrec.config.base import FullTableName, Name, Settings, StageSettings
from sparkrec.secrets import masked

Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]


class GateSettings(Settings):
    """What a challenger has to show before it replaces the champion.

    Both rank for the users of the test split of the challenger's dataset, which neither was trained on.
    """

    metric: str = "ndcg@10"
    """By which they are compared, user by user: one of docs/metrics.md with its cutoff."""
    margin: Share | None = None
    """The challenger may be worse by this share of the champion's value, and no more: the interval of 95 % of the
    difference has to lie above. None: nobody is promoted but by `sparkrec promote`."""
    segments: dict[Annotated[str, Field(pattern=r"^users:[1-9]/[1-9]$")], Share] = {}
    """Margins of groups of users by how much they did, as `users:1/3: 0.1`, the third with the fewest events."""
    min_users: int = Field(30, ge=1)
    """Fewer users to compare by tell nothing: the champion stays."""
    min_coverage: Share | None = None
    """Share of the champion's coverage of the catalogue that the challenger keeps at least. None: any."""
    min_overlap: Share | None = None
    """Share of a user's list that has to be in both lists, on average. None: any."""
    first: Literal["promote", "keep"] = "promote"
    """Where there is no champion yet: whether the challenger becomes it, without a comparison."""
    incompatible: Literal["promote", "keep", "refuse"] = "keep"
    """Where the champion cannot be compared with any more, as its files are gone or it has seen what is held out: the
    challenger replaces it, does not, or the run ends with an error."""

    @model_validator(mode="after")
    def _cutoff_is_there(self) -> GateSettings:
        name, _, cutoff = self.metric.partition("@")
        if not (name and cutoff.isdecimal() and int(cutoff)):
            raise ValueError(f"metric: found {self.metric!r}, expected one with a cutoff, such as ndcg@10")
        groups = {segment.partition("/")[2] for segment in self.segments}
        if len(groups) > 1:
            raise ValueError(f"segments: found groups of {', '.join(sorted(groups))}, expected all of one number")
        return self


class Check(Settings):
    """A limit, and what it means to be beyond it."""

    limit: float = Field(ge=0)
    """The last value that is fine."""
    beyond: Literal["fail", "warn", "off"] = "fail"
    """Nothing is trained; it is said and recorded; or it is not looked at."""


class DataChecks(Settings):
    """What is asked of the data before anything is trained on it."""

    volume: Check = Check(limit=0.5)
    """Rows that have come since the night before, as a share of the median of up to seven nights before, of which it
    takes three: at least."""
    rejected: Check = Check(limit=0.05, beyond="warn")
    """Share of the rows of this night's batches that were rejected: at most."""
    age_hours: Check = Check(limit=48.0, beyond="warn")
    """Hours since the latest event of the dataset: at most."""
    new_users: Check = Check(limit=0.5, beyond="warn")
    """Share of the dataset's users that the champion's does not have: at most."""
    new_items: Check = Check(limit=0.5, beyond="warn")
    """The same of items."""
    popularity: Check = Check(limit=0.1, beyond="warn")
    """How much the shares of items in train have moved since the champion's dataset, from 0 to 1, by the divergence of
    Jensen and Shannon in bits (Lin 1991): at most."""


class ListChecks(Settings):
    """What lists have to be before they are served."""

    min_users: Share = 0.9
    """Of as many users as were served before, this share at least."""
    min_full: Share = 0.5
    """Share of users whose lists have all k items."""
    min_overlap: Share | None = None
    """Share of a user's served list that is in the new one, on average, for users in both. None: any."""


class MlflowSettings(Settings):
    """A registered model of MLflow that shows what is served: versions with the aliases `champion` and `challenger`.

    Who may write to it MLflow takes from its own environment variables, such as MLFLOW_TRACKING_USERNAME.
    """

    registered_model: str = Field(min_length=1)
    """Its name, in Unity Catalog `catalog.schema.name`. It is made where it is not there."""
    tracking_uri: str | None = None
    """Of the server or the store. None: MLFLOW_TRACKING_URI, or what the runtime brings."""
    experiment: str = Field("sparkrec", min_length=1)
    """Where the runs of versions are: settings, metrics and plots of a model, and the model. It is made where it is not
    there."""

    @field_validator("tracking_uri")
    @classmethod
    def _has_no_password(cls, uri: str | None) -> str | None:
        if uri is not None and masked(uri) != uri:
            raise ValueError(
                "found a password in it: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment"
            )
        return uri


class RetrainSettings(StageSettings):
    """Train again on what has come, and replace what is served where that is better; entries are a stage's settings
    without `lake` and `spark`, or a YAML file of them."""

    validated_later = frozenset({"ingest", "prepare", "train", "recommend"})

    name: Name
    """What is served under it, and keeps its history: one line of champions."""
    ingest: list[dict[str, object] | str] = []
    """Batches to take in, in order; what is there already is not taken twice."""
    prepare: dict[str, object] | str
    """The dataset to make; with a split by time that moves with the log, such as `recent`."""
    train: dict[str, object] | str
    """The challenger."""
    recommend: dict[str, object] | str = {}
    """The lists to serve."""
    checks: DataChecks = DataChecks()
    """When the data may be trained on."""
    gate: GateSettings = GateSettings()
    """When the challenger replaces the champion."""
    lists: ListChecks = ListChecks()
    """When its lists may be served."""
    serve: FullTableName = "served"
    """Table of the lists that are served, of the lake or by its full name. They are replaced in one commit."""
    deadline_hours: float = Field(12.0, gt=0)
    """A run holds the name for so long; after that another may take it, and this one changes nothing more."""
    mlflow: MlflowSettings | None = None
    """A registered model that follows what is served. None: there is none."""
