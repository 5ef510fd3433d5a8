"""Reading an interaction log."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from sparkrec.config.base import FullTableName, Name, Settings, StageSettings, TableName


class SourceSettings(Settings):
    """What to read: files by `path` and `format`, or a `table` of a catalog, whatever its format."""

    path: str | None = Field(None, min_length=1)
    """File, folder or glob; for `delta` the table's folder."""
    format: Literal["csv", "json", "parquet", "delta"] | None = None
    """Of the files. `json` is one object a line."""
    table: FullTableName | None = None
    """Name of a table or view as Spark knows it: `table`, `schema.table` or `catalog.schema.table`."""
    options: dict[str, str] = {}
    """Options of Spark's reader; CSV files have a header unless `header` is "false"."""

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if (self.path is None) == (self.table is None):
            raise ValueError("expected either path, of files, or table, of a catalog")
        if self.path is not None and self.format is None:
            raise ValueError("path needs format: csv, json, parquet or delta")
        if self.table is not None and self.format is not None:
            raise ValueError("a table has a format of its own: leave format out")
        return self

    @property
    def label(self) -> str:
        """For people: the path, or the name."""
        return str(self.path or self.table)


class ColumnSettings(Settings):
    """Which column of the source is what."""

    user: str = "user"
    """Column of the user's id."""
    item: str = "item"
    """Column of the item's id."""
    rating: str | None = None
    """Rating, play count or weight. None: every row weighs 1."""
    timestamp: str | None = None
    """When it happened. None: not known; then neither `dedup: last` nor a split by time is possible."""
    event: str | None = None
    """Kind of event, such as view, cart, buy."""
    context: list[str] = []
    """Further columns, kept as they are."""

    @field_validator("context")
    @classmethod
    def _names_are_free(cls, context: list[str]) -> list[str]:
        taken = {
            "user_id",
            "item_id",
            "rating",
            "timestamp",
            "event",
            "batch",
            "reason",
            "source_file",
            "row",
            "digest",
        }
        if clash := sorted(taken.intersection(context)):
            raise ValueError(
                f"{', '.join(clash)}: the table has columns of that name already; rename them at the source"
            )
        return context


class FollowSettings(Settings):
    """Each run takes what has changed in the source since the last one, deletes and updates, too."""

    on_gap: Literal["refuse", "rebuild"] = "refuse"
    """Where nobody can tell what has changed, as the table was made again, its history is gone, or a file that was
    taken is another now: an error, or all that is here of the source is compared with what it has, and made the
    same."""


class IngestSettings(StageSettings):
    """Take one batch of an interaction log into a Delta table."""

    source: SourceSettings
    """What to read."""
    columns: ColumnSettings = ColumnSettings()
    """Which of its columns is what."""
    table: TableName = "interactions"
    """Target; what is refused goes to `<table>_rejected`."""
    batch: Name | None = None
    """Id of this batch. None: made from its content."""
    follow: FollowSettings | None = None
    """Take what has changed since the last run instead of a batch: in a Delta table, by its change data feed if it has
    one; in any other table by comparing; in a folder, new files. None: the source is one batch."""
    id_type: Literal["source", "string", "long"] = "source"
    """Type of user and item ids. `source`: integers become long, strings stay strings."""
    timestamp_format: str = "auto"
    """`auto`: timestamps as they are, numbers as seconds since 1970, strings as ISO 8601. `seconds`, `milliseconds`,
    or a Spark datetime pattern."""
    on_null_timestamp: Literal["reject", "keep"] = "reject"
    """What becomes of a row without a timestamp, where `columns.timestamp` names one."""
    max_abs_rating: float = Field(1e6, gt=0)
    """A rating of larger magnitude is rejected."""
    max_rejected: float = Field(0.1, ge=0, le=1)
    """Share of rejected rows above which the job fails and writes nothing."""

    @model_validator(mode="after")
    def _follows_or_is_a_batch(self) -> Self:
        if self.follow is not None and self.batch is not None:
            raise ValueError("batch: what is followed has batches of its own: leave it out")
        pinned = {"versionasof", "timestampasof"} & {name.lower() for name in self.source.options}
        if self.follow is not None and pinned:
            raise ValueError(f"source.options: a source at one version ({', '.join(pinned)}) cannot be followed")
        return self
