"""Columns of interactions, users and items as features of a model."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from sparkrec.config.base import Name, Settings
from sparkrec.config.ingest import SourceSettings


class _FieldSettings(Settings):
    column: str = Field(min_length=1)
    """Column of the table."""
    name: Name | None = None
    """What the field is called. None: as its column."""

    @property
    def title(self) -> str:
        """Its name."""
        return self.name or self.column


class CategoricalField(_FieldSettings):
    """One category a row. Null is a category of its own, and so is whatever the train rows do not have."""

    kind: Literal["categorical"] = "categorical"
    min_count: int = Field(1, ge=1)
    """Categories with fewer train rows count as unknown."""
    hash_buckets: int | None = Field(None, ge=1)
    """Categories by hash into so many buckets: no vocabulary, and nothing is unknown."""


class MultiField(_FieldSettings):
    """Several categories a row, such as genres: an array of strings, or a string with a separator."""

    kind: Literal["multi"] = "multi"
    pooling: Literal["mean", "sum"] = "mean"
    """What becomes of the vectors of a row's categories. An empty array is as null."""
    separator: str | None = Field(None, min_length=1)
    """What stands between the categories of a string. None: the column is an array."""
    min_count: int = Field(1, ge=1)
    """Categories with fewer train rows count as unknown."""
    hash_buckets: int | None = Field(None, ge=1)
    """Categories by hash into so many buckets: no vocabulary, and nothing is unknown."""


class NumericField(_FieldSettings):
    """A number: times one vector, or by its bucket. Null and NaN are a category of their own."""

    kind: Literal["numeric"] = "numeric"
    scale: Literal["standard", "log", "buckets"] = "standard"
    """standard: (x - mean) / deviation of the train rows; log: of sign(x) log(1 + |x|); buckets: by quantile."""
    buckets: int = Field(10, ge=2)
    """Number of buckets of scale `buckets`."""


class DateField(_FieldSettings):
    """A part of a timestamp, in UTC."""

    kind: Literal["date"] = "date"
    column: str = "timestamp"
    """Column of timestamps."""
    part: Literal["hour", "weekday", "day", "month"]
    """weekday: 0 is Monday; day: of the month."""

    @property
    def title(self) -> str:
        return self.name or f"{self.column}_{self.part}"


FieldSettings: TypeAlias = Annotated[
    CategoricalField | MultiField | NumericField | DateField, Field(discriminator="kind")
]


class SideFeatures(Settings):
    """Features of users or items, from a table of them."""

    source: SourceSettings
    """The table."""
    id: str
    """Column of ids, as the interaction log has them."""
    timestamp: str | None = None
    """Column that says from when on a row holds, in a table with several rows of an id: an interaction sees the latest
    of its time or before, and nothing later. None: one row an id."""
    fields: list[FieldSettings] = Field(min_length=1)
    """Which columns are features, and of what kind."""


class FeatureSettings(Settings):
    """What models with features see beside user and item; others do without."""

    context: list[FieldSettings] = []
    """Of an interaction: context columns of the table, `timestamp` or `event`."""
    users: SideFeatures | None = None
    """Of users. None: their ids alone."""
    items: SideFeatures | None = None
    """Of items. None: their ids alone."""
    max_categories: int = Field(1_000_000, ge=1)
    """A column of more categories is hashed into so many buckets, with a warning."""

    @property
    def sides(self) -> dict[str, SideFeatures]:
        """Tables of features, `users` and `items`, as far as there are such."""
        return {name: side for name, side in (("users", self.users), ("items", self.items)) if side is not None}

    @model_validator(mode="after")
    def _names_are_different(self) -> FeatureSettings:
        sides = [side.fields for side in self.sides.values()]
        titles = ["user", "item", *(each.title for fields in (self.context, *sides) for each in fields)]
        if again := sorted({title for title in titles if titles.count(title) > 1}):
            raise ValueError(
                f"{', '.join(again)}: found more than one field of that name (user and item are the ids); name them"
            )
        return self


class AttributeSettings(Settings):
    """Attributes of users or items: numbers are standardised, strings one-hot, arrays of strings multi-hot."""

    source: SourceSettings
    """The table of attributes."""
    id: str
    """Column of ids, as the interaction log has them."""
    columns: list[str] = Field(min_length=1)
    """Columns that are attributes."""
    min_count: int = Field(1, ge=1)
    """Categories that fewer users or items have share one column."""
