"""What all settings share."""

from __future__ import annotations

from typing import Annotated, ClassVar, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from typing_extensions import Self

Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
"""A dataset, model or batch: letters, digits, `_`, `.` and `-`. It becomes part of a path."""

TableName: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,99}$")]
"""A table of the lake."""

Reference: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}(@[0-9a-f]{12})?$")]
"""A finished run by name (its latest) or pinned, `name@id`."""

Fraction: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


def _ascending(span: tuple[float, float]) -> tuple[float, float]:
    if not span[0] < span[1]:
        raise ValueError(f"found {span[0]:g} and {span[1]:g}, expected the lower bound first")
    return span


Span: TypeAlias = Annotated[tuple[float, float], AfterValidator(_ascending)]
"""A lower and an upper bound."""


class Settings(BaseModel):
    """Base of all settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)
    validated_later: ClassVar[frozenset[str]] = frozenset()
    """Keys whose values are settings of other classes, and are left as they are until those take them."""

    def filled(self, **values: object) -> Self:
        """A copy in which each of these settings that is None has this value."""
        return self.model_copy(update={name: value for name, value in values.items() if getattr(self, name) is None})


class SparkSettings(Settings):
    """How a session is made when none is active (spark-submit and notebooks bring their own)."""

    master: str = "local[*]"
    """Master URL."""
    memory: str = Field("4g", pattern=r"^[0-9]+[kmgt]$")
    """Driver memory."""
    shuffle_partitions: int = Field(8, ge=1)
    """Tasks of a shuffle. A cluster wants two to four a core; a laptop few."""
    conf: dict[str, str] = {}
    """Further Spark settings."""


class StageSettings(Settings):
    """What every stage has."""

    lake: str = Field(min_length=1)
    """Root folder of the lake: a local path, or a URI that Spark and pyarrow both reach (s3, gs, abfs, hdfs)."""
    spark: SparkSettings = SparkSettings()
    """The session, when there is none yet."""
