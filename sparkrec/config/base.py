"""What all settings share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag
from typing_extensions import Self

Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
"""A dataset, model or batch: letters, digits, `_`, `.` and `-`. It becomes part of a path."""

TableName: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,99}$")]
"""A table of the lake."""

FullTableName: TypeAlias = Annotated[str, Field(pattern=r"^[^`./\s][^`./]*(\.[^`./]+){0,2}$")]
"""A table of a catalog: `table`, `schema.table` or `catalog.schema.table`."""

Schema: TypeAlias = Annotated[str, Field(pattern=r"^[^`./\s][^`./]*(\.[^`./]+)?$")]
"""A schema of a catalog: `schema` or `catalog.schema`."""

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


class CatalogLake(Settings):
    """A lake whose tables are those of a catalog."""

    schema_: Schema = Field(alias="schema")
    """Schema of the tables: `schema`, or `catalog.schema`."""
    files: str = Field(min_length=1)
    """Root folder of all else, such as datasets and models: a path as that of a lake that is a folder."""


def _lake_tag(value: object) -> str:
    """In brackets, as no key is: errors leave it out."""
    return "(catalog)" if isinstance(value, CatalogLake | Mapping) else "(folder)"


LakePlace: TypeAlias = Annotated[
    Annotated[str, Field(min_length=1), Tag("(folder)")] | Annotated[CatalogLake, Tag("(catalog)")],
    Discriminator(_lake_tag),
]


class StageSettings(Settings):
    """What every stage has."""

    lake: LakePlace
    """Root folder of the lake: a local path, or a URI that Spark and pyarrow both reach (s3, gs, abfs, hdfs). Or
    `schema` and `files`, where its tables are to be a catalog's."""
    spark: SparkSettings = SparkSettings()
    """The session, when there is none yet."""

    @property
    def files(self) -> str:
        """Root folder of the lake's files."""
        return self.lake if isinstance(self.lake, str) else self.lake.files

    @property
    def schema_of_tables(self) -> str | None:
        """Schema of the lake's tables; None: they are in folders beside its files."""
        return None if isinstance(self.lake, str) else self.lake.schema_
