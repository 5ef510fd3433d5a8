"""What is done with a model."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from sparkrec.config.base import FullTableName, Reference, Settings, Span, StageSettings
from sparkrec.config.ingest import SourceSettings


class IdSource(Settings):
    """A list of ids as the interaction log has them."""

    source: SourceSettings
    """Where it is."""
    column: str
    """Column of ids."""


class RetrieveSettings(Settings):
    """The first of two stages: a model that is quick to ask, of the same dataset."""

    model: Reference
    """The first model."""
    n: int = Field(200, ge=1)
    """Its best items of each user, of which the other model ranks the first k."""


class RecommendSettings(StageSettings):
    """Write the best k items of every user."""

    model: Reference
    """The model that ranks."""
    k: int = Field(10, ge=1)
    """Items in each list."""
    users: IdSource | None = None
    """None: all users of the dataset. Its further columns are the context of each, for a model that sees one."""
    context: dict[str, str | int | float | bool | None] = {}
    """Of all users, by context column: what `users` does not say of each."""
    fresh: bool = False
    """Ask after what users did up to now, as the interactions table has it, and not up to when the dataset was
    prepared: without training anew, lists follow of a model of sequences, and of one whose rows of users are made of
    their history or can be folded in. Users who have come since get theirs, too."""
    retrieve: RetrieveSettings | None = None
    """None: the model ranks all items itself."""
    candidates: IdSource | None = None
    """Recommend only these items."""
    deny: IdSource | None = None
    """Never recommend these items."""
    exclude_seen: bool = True
    """Whether items that the user has had are left out."""
    table: FullTableName = "recommendations"
    """Where the lists go: a table of the lake, or, by a full name such as `main.shop.lists`, any Delta table of the
    catalog that has the columns of one, or is not there yet."""

    @model_validator(mode="after")
    def _enough_is_retrieved(self) -> RecommendSettings:
        if self.retrieve is not None and self.retrieve.n < self.k:
            raise ValueError(f"retrieve.n is {self.retrieve.n}: expected k, {self.k}, or more")
        return self


class FullRanking(Settings):
    """Rank every item."""

    kind: Literal["full"] = "full"
    exclude_seen: bool = True
    """Leave out what the user had before: held-out items among that are misses. False: for logs where people repeat."""


class GivenCandidates(Settings):
    """Rank the candidates that came with each test row."""

    kind: Literal["candidates"] = "candidates"


class SampledNegatives(Settings):
    """Rank the held-out items among n others. Cheaper, and biased (Krichene and Rendle 2020)."""

    kind: Literal["sampled"] = "sampled"
    negatives: int = Field(100, ge=1)
    """Items drawn for each user."""
    exclude_seen: bool = True
    """Draw from items that the user has in no split. False: from all that are not held out here, for logs where people
    repeat."""
    seed: int = 0
    """Of the draw."""


Protocol: TypeAlias = Annotated[FullRanking | GivenCandidates | SampledNegatives, Field(discriminator="kind")]


class ItemTitles(Settings):
    """What people call the items."""

    source: SourceSettings
    """Table of the items."""
    id: str
    """Column of ids, as the interaction log has them."""
    title: str
    """Column of text. An item without one, or without a row, goes by its id."""


class EvaluateSettings(StageSettings):
    """Measure a model on a held-out split."""

    model: Reference
    """The model to measure."""
    split: Literal["test", "validation"] = "test"
    """Which held-out split of its dataset to measure on."""
    protocol: Protocol | None = FullRanking()
    """None: rankings are not measured."""
    cutoffs: list[Annotated[int, Field(ge=1)]] = Field([10], min_length=1)
    """The k of every metric at k."""
    metrics: list[str] = Field(["ndcg", "recall", "hit_rate", "map", "mrr", "precision"], min_length=1)
    """Of rankings, by name; docs/metrics.md has them all. AUC comes with them, under full ranking coverage and novelty,
    and with sampled negatives of users with one held-out item what these say of full ranking."""
    bootstrap: int = Field(0, ge=0)
    """Samples of users from which intervals are taken; 0: they are 1.96 standard errors."""
    keep_users: bool = False
    """Also what each user contributes, in `users` of the run: `sparkrec report` tells by it whether runs differ."""
    examples: int = Field(5, ge=0)
    """Users whose lists are kept in metrics.json, under full ranking."""
    titles: ItemTitles | None = None
    """Of the items in the examples, for `sparkrec report`. None: they go by their ids."""
    ratings: bool = False
    """Also RMSE and MAE of predicted ratings."""
    clicks: bool = False
    """Also AUC, grouped AUC, log loss and calibration of predicted clicks: rows whose value is above 0."""
    importance: bool = False
    """Also how much the AUC of clicks owes to each field, for a model of features: `importance` in metrics.json."""
    clip: Span | None = None
    """Clip predicted ratings to this range first."""
    segments: int = Field(3, ge=1, le=10)
    """Groups of users by activity and of items by popularity, of about equal size."""

    @model_validator(mode="after")
    def _something_is_measured(self) -> EvaluateSettings:
        if self.protocol is None and not (self.ratings or self.clicks):
            raise ValueError("nothing to measure: set protocol, ratings or clicks")
        if self.split == "validation" and isinstance(self.protocol, GivenCandidates):
            raise ValueError("candidates come with test rows only: use split test, or protocol full or sampled")
        return self


class PipelineSettings(StageSettings):
    """All stages in order; each entry is a stage's settings without `lake` and `spark`, or a YAML file of them."""

    validated_later = frozenset({"ingest", "prepare", "train", "evaluate", "recommend"})

    ingest: list[dict[str, object] | str] = []
    """Batches to take in, in order."""
    prepare: dict[str, object] | str
    """The dataset to make."""
    train: list[dict[str, object] | str] = Field(min_length=1)
    """Models to fit to it."""
    evaluate: list[dict[str, object] | str] | None = None
    """One entry is enough: it is done for every model."""
    recommend: dict[str, object] | str | None = None
    """None: nothing is recommended. Without `model`: the first one of `train`."""
