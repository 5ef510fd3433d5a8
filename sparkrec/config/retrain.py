"""From one night to the next: what is trained again, what it takes to replace what is served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from sparkrec.config.base import FullTableName, Name, Settings, StageSettings
from sparkrec.config.schedule import ScheduleSettings
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
    min_served: Share | None = None
    """Share of the users of the test split that the challenger answers itself, by a row of theirs or by what they did,
    and not by what is popular. None: any."""
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

    limit: float | None = Field(None, ge=0)
    """The last value that is fine. None: the one that the check names; where it is one to begin with, three times the
    median of up to seven nights before, once there are three, and no less than a tenth of the one to begin with."""
    beyond: Literal["fail", "warn", "off"] = "fail"
    """The night ends with an error; it is said and recorded; or it is not looked at."""


class Checks(Settings):
    """Checks by name."""

    begins: ClassVar[Mapping[str, float]]
    """Limits until enough nights are known to tell what is usual."""
    at_least: ClassVar[frozenset[str]]
    """Those with a lower limit. What they are of is relative to what was before, so that nights do not move it."""


class DataChecks(Checks):
    """What is asked of the data before anything is trained on it."""

    begins = {
        "volume": 0.5,
        "rejected": 0.05,
        "nulls": 0.05,
        "age_hours": 48.0,
        "new_users": 0.5,
        "new_items": 0.5,
        "popularity": 0.1,
        "ratings": 0.1,
    }
    at_least = frozenset({"volume"})

    volume: Check = Check()
    """Rows that have come since the night before, as a share of the median of up to seven nights before, of which it
    takes three: at least, 0.5 if no limit is given."""
    rejected: Check = Check(beyond="warn")
    """Share of the rows of this night's batches that were rejected: at most, 0.05 to begin with."""
    nulls: Check = Check(beyond="warn")
    """Share of the good rows of this night's batches without a timestamp or without an event, whichever is more, where
    there is such a column: at most, 0.05 to begin with. Rows without a rating are rejected."""
    age_hours: Check = Check(beyond="warn")
    """Hours since the latest event of the dataset: at most, 48 to begin with."""
    new_users: Check = Check(beyond="warn")
    """Share of the dataset's users that the champion's does not have: at most, 0.5 to begin with."""
    new_items: Check = Check(beyond="warn")
    """The same of items."""
    popularity: Check = Check(beyond="warn")
    """How much the shares of items in train have moved since the champion's dataset, from 0 to 1, by the divergence of
    Jensen and Shannon in bits (Lin 1991): at most, 0.1 to begin with."""
    ratings: Check = Check(beyond="warn")
    """The same of the values of what is later than the champion's dataset (of implicit feedback, the confidences), each
    apart or, if there are more than twenty, by deciles: at most, 0.1 to begin with."""


class DriftChecks(Checks):
    """What is asked of lists that were served, and of those that are to be."""

    begins = {"served": 0.5, "recommended": 0.5, "fallback": 0.5}
    at_least = frozenset({"served"})

    served: Check = Check(beyond="warn")
    """The gate's metric of what was served, by what its users did afterwards, as a share of what the gate had
    promised, once there are gate.min_users of them: at least, 0.5 if no limit is given."""
    recommended: Check = Check(beyond="warn")
    """How much the shares of items in the lists have moved since those before, by the divergence of Jensen and Shannon
    in bits: at most, 0.5 to begin with."""
    fallback: Check = Check(beyond="warn")
    """Share of users whose lists are of what is popular: at most, 0.5 to begin with."""


class ListChecks(Settings):
    """What lists have to be before they are served."""

    min_users: Share = 0.9
    """Of as many users as were served before, this share at least."""
    min_full: Share = 0.5
    """Share of users whose lists have all k items."""
    min_overlap: Share | None = None
    """Share of a user's served list that is in the new one, on average, for users in both. None: any."""


class RetentionSettings(Settings):
    """What stays of former runs: what is served, what was served before that, what either was made of, and these."""

    runs: int = Field(3, ge=1)
    """Of each stage and name, as many, the newest ones."""
    days: float = Field(30.0, ge=0)
    """And those that are younger. What was given up and is older goes, too."""
    vacuum: bool = True
    """Delete the files of the lake's tables that no version needs which Delta keeps, which are those of a week."""


Outcome: TypeAlias = Literal["promoted", "kept", "unchanged", "refused", "failed"]
"""What may come of a night."""


class NotifySettings(Settings):
    """Who is told what came of a night, in JSON: a webhook or a command."""

    webhook: str | None = Field(None, pattern=r"^https?://([\w.-]+|\[[0-9A-Fa-f:]+\])(:\d+)?([/?]\S*)?$")
    """URL that it is posted to, with a `text` for people, as chats show it. It is masked as a secret: better `${NAME}`,
    from the environment."""
    command: Annotated[list[str], Field(min_length=1)] | None = None
    """Program and arguments; it has it on its standard input."""
    outcomes: list[Outcome] = ["promoted", "kept", "refused", "failed"]
    """Of what they are told."""

    @model_validator(mode="after")
    def _one_way(self) -> NotifySettings:
        if (self.webhook is None) == (self.command is None):
            raise ValueError("found both or neither of webhook and command, expected one of them")
        return self


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
    cold_every: int = Field(1, ge=1)
    """The challenger begins with what the champion has learned (`train.warm_start`), but for every so many nights, when
    it begins cold, and is compared with the same model begun warm. 1: always cold."""
    recommend: dict[str, object] | str = {}
    """The lists to serve."""
    checks: DataChecks = DataChecks()
    """When the data may be trained on."""
    gate: GateSettings = GateSettings()
    """When the challenger replaces the champion."""
    lists: ListChecks = ListChecks()
    """When its lists may be served."""
    drift: DriftChecks = DriftChecks()
    """What is watched of lists before and after they are served."""
    serve: FullTableName = "served"
    """Table of the lists that are served, of the lake or by its full name. They are replaced in one commit."""
    retention: RetentionSettings | None = None
    """After a night that ended well, what stays of former runs. None: everything."""
    deadline_hours: float = Field(12.0, gt=0)
    """A run holds the name for so long; after that another may take it, and this one changes nothing more."""
    schedule: ScheduleSettings | None = None
    """When a scheduler runs it, for `sparkrec schedule render`. None: nothing is rendered."""
    notify: list[NotifySettings] = []
    """Who is told of every night, whatever came of it. Who cannot be reached is warned of, and changes nothing."""
    mlflow: MlflowSettings | None = None
    """A registered model that follows what is served. None: there is none."""
