"""What the settings of every kind of model answer, what a kind declares, and how it is found by its name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, TypeAlias, Union

from pydantic import Field, GetJsonSchemaHandler, PlainValidator, SerializeAsAny, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError
from typing_extensions import Self

from sparkrec.config.base import Settings
from sparkrec.config.data import DataFacts
from sparkrec.errors import ConfigError, lacks_spark

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkrec.config.features import AttributeSettings
    from sparkrec.config.prepare import PrepareSettings, SequenceSettings
    from sparkrec.exported.histories import Histories
    from sparkrec.models.base.recommender import Recommender
    from sparkrec.spark.data.dataset import Dataset
    from sparkrec.spark.data.fit_inputs import FitInputs
    from sparkrec.spark.model.fitted import Model

ROOMS = ("sparkrec.spark.algorithms", "sparkrec.models")
"""Packages in which each module is a kind of model of that name, but for packages that start with `_` or hold no
`MODEL`: what Spark fits in closed form, and what torch trains."""
ENTRY_POINTS = "sparkrec.models"
"""Group of entry points by which an installed package brings kinds: `kind = "package.module"`."""
_NO_KINDS = ("base",)


@dataclass(frozen=True)
class SequenceNeeds:
    """What a model that sees the order of events needs of the sequences of a dataset."""

    windows: bool | None = False
    """Whether it is trained on windows with targets, or on whole histories; None: on either."""
    ordered: bool = True
    """Whether events need an order in time."""
    unordered_remedy: str = "prepare it from events with timestamps"
    """What to do about sequences without one."""
    cut: tuple[tuple[str, int], ...] = ()
    """How `sparkrec.fit` cuts sequences, where that is not the default of `prepare.sequences`."""

    def check(self, cut: SequenceSettings | None, kind: str, dataset: str) -> SequenceSettings:
        """How the sequences of a dataset were cut. Raises ConfigError where they are not what a model needs.

        kind, dataset  what to call the two in the error
        """
        if cut is None:
            raise ConfigError(
                f"model {kind} sees the order of events, and dataset {dataset} has no sequences: prepare it with "
                "`sequences: {length: 50}`"
            )
        if self.ordered and not cut.ordered:
            raise ConfigError(
                f"model {kind} sees the order of events, and the sequences of dataset {dataset} have none "
                f"(`ordered: false`): {self.unordered_remedy}"
            )
        if self.windows is not None and self.windows != (cut.targets is not None):
            needs = "windows, as of `sequences: {length: 5, targets: 3}`" if self.windows else "whole histories"
            has = "whole histories" if cut.targets is None else f"windows with {cut.targets} targets"
            raise ConfigError(f"model {kind} is trained on {needs}; dataset {dataset} has {has}. Prepare another one.")
        return cut


class ModelSettings(Settings):
    """Base of the settings of a kind of model, which have `kind`, a Literal whose default is the name."""

    declaration: ClassVar[Declaration]
    """What the kind declares; `Declaration` sets it."""

    if TYPE_CHECKING:

        @property
        def kind(self) -> str: ...

    def suited(self, data: DataFacts) -> Self:
        """These settings, with a value for each that was left to the data.

        Raises ValueError where the settings cannot be meant for such data.
        """
        return self

    def check_packages(self) -> None:
        """Raise ConfigError where a package that fitting needs is not installed."""

    def check_dataset(self, prepared: PrepareSettings, dataset: str) -> None:
        """Raise ConfigError or TrainError where the model cannot be fitted to a dataset of these settings.

        dataset  what to call it in the error
        """
        if self.sequence_needs is not None:
            self.sequence_needs.check(prepared.sequences, self.kind, dataset)

    def check_warm_start(self, earlier: ModelSettings) -> None:
        """Raise ConfigError where a fit cannot begin with the rows of a model of these settings."""
        raise ConfigError(f"{self.kind} is fitted at once and begins with nothing; als and networks do. Leave it out")

    @property
    def sequence_needs(self) -> SequenceNeeds | None:
        """What it needs of sequences; None: it sees no order of events."""
        return None

    @property
    def parents(self) -> list[str]:
        """References of published models that it starts from."""
        return []

    @property
    def attributes(self) -> dict[str, AttributeSettings]:
        """Tables of attributes that it reads beside the dataset, by setting."""
        return {}

    @property
    def needs_validation(self) -> bool:
        """Whether it cannot be fitted without a validation split that it does not see."""
        return False

    @property
    def wants_validation(self) -> bool:
        """Whether it is fitted better with such a split."""
        return self.needs_validation


class Parent(NamedTuple):
    """A published model that another one starts from."""

    settings: ModelSettings
    folder: str
    """Of its tables and its scorer."""


@dataclass(frozen=True)
class UserRows:
    """How a model's rows of users follow from what these did."""

    make: Callable[[Model, Any, DataFrame, DataFrame], DataFrame]
    """(model, settings, events, observed) -> model rows (user, index, value) of the users in `events` (user, item,
    value, confidence), items of `observed`, which the model was fitted to."""
    by: Literal["history", "folded in"]
    """Whether a row is the history itself, or solved for."""


@dataclass(frozen=True)
class Likeness:
    """By what two users or two items of a model are alike."""

    span: Callable[[Any], tuple[int, int]] | None = None
    """Of the settings: where in a dense row the vector begins, counted from 1, and its length; None: all of the row."""
    fitted_side: Literal["user", "item"] | None = None
    """The side whose rows are similarities that the model was fitted with."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How a fitted model is asked."""

    sees_fields: bool = False
    """Whether it sees features of users, items and contexts."""
    ranks_strangers: bool = False
    """Whether it tells users apart to whom it was not fitted, by attributes of theirs."""
    user_rows: UserRows | None = None
    """None: rows of users are fitted, and no others can be made but by the encoder of a model of whole rows."""
    bind: Callable[[Model, DataFrame], Model] | None = None
    """(model, histories (user, items array<long>)) -> the model for these users, where it sees histories. None: its
    scorer makes a vector of each history."""
    exported: Callable[[Model, Any, DataFrame], Histories] | None = None
    """(model, settings, observed) -> what does the same of `user_rows` or `bind` where there is no Spark. None: what
    was trained does, or nothing."""
    likeness: Likeness | None = field(default_factory=Likeness)
    """None: its rows say nothing of what somebody likes."""
    explain: Callable[[Model, Dataset, int, int], DataFrame] | None = None
    """(model, dataset, user, item) -> (item, contribution): what the score is the sum of; None: it is no such sum."""
    explains_fields: bool = False
    """Whether a score is a sum over fields and pairs of them."""


@dataclass(frozen=True, kw_only=True)
class Declaration(Serving):
    """A kind of model, for all who fit it, ask it or explain it: they read this, and never ask what it is."""

    settings: type[ModelSettings]
    feedback: tuple[Literal["implicit", "explicit", "clicks"], ...]
    """What it can learn from."""
    fit: Callable[[Any, FitInputs], Model] | None = None
    """(settings, inputs) -> the model, in closed form on Spark; None: torch trains `module`."""
    module: type[Recommender] | None = None
    """The class that torch trains."""

    def __post_init__(self) -> None:
        self.settings.declaration = self
        _KNOWN[self.kind] = self

    @property
    def makes_user_rows(self) -> bool:
        """Whether rows of users follow from what these did: by `user_rows`, or by what a module of whole rows has
        learned."""
        return self.user_rows is not None or (self.module is not None and self.module.sees == "rows")

    @property
    def kind(self) -> str:
        """Its name."""
        return str(self.settings.model_fields["kind"].default)


_KNOWN: dict[str, Declaration] = {}
"""Kinds whose module has been imported."""


@cache
def _places() -> dict[str, str]:
    """Module of each kind that is installed."""
    places = {each.name: each.value for each in entry_points(group=ENTRY_POINTS)}
    for room in ROOMS:
        for module in iter_modules(import_module(room).__path__):
            if not module.name.startswith("_") and module.name not in _NO_KINDS:
                places[module.name] = f"{room}.{module.name}"
    return places


def installed_kinds() -> list[str]:
    """Names of the kinds of sparkrec and of installed packages."""
    return sorted(_places())


def kinds() -> list[str]:
    """The same, and those that this process has declared otherwise."""
    return sorted(_places().keys() | _KNOWN.keys())


def declaration(kind: str) -> Declaration:
    """What a kind declares; its module is imported. Raises ConfigError where it does not exist, or lacks a package."""
    if kind not in _KNOWN:
        place = _places().get(kind)
        if place is None:
            raise ConfigError(f"there is no model of kind {kind!r}: expected one of {', '.join(kinds())}")
        try:
            import_module(place)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("sparkrec"):
                raise
            raise lacks_spark(error) or ConfigError(
                f"model {kind} needs {error.name}, which is not installed: install sparkrec[train], or "
                "sparkrec[horovod]"
            ) from None
    if kind not in _KNOWN:
        raise ConfigError(f"{_places()[kind]} declares no model of kind {kind!r}: expected MODEL = Declaration(...)")
    return _KNOWN[kind]


def kinds_that(test: Callable[[Declaration], bool]) -> list[str]:
    """Names of the kinds whose declaration passes a test, for messages; those that lack a package are left out."""
    names = []
    for kind in kinds():
        with suppress(ConfigError):
            if test(declaration(kind)):
                names.append(kind)
    return names


def model_settings(values: Any) -> ModelSettings:
    """The settings of a model, of plain values with its `kind`. Raises pydantic's ValidationError, and ConfigError."""
    if isinstance(values, ModelSettings):
        return values
    kind = values.get("kind") if isinstance(values, dict) else None
    if not isinstance(kind, str) or kind not in kinds():
        expected = f"Input should be one of {', '.join(kinds())}"
        detail = InitErrorDetails(
            type=PydanticCustomError("kind", expected),
            loc=("kind",),
            input=kind if isinstance(values, dict) else values,
        )
        raise ValidationError.from_exception_data("model", [detail])
    # Through JSON, whose strict mode takes a list where a tuple is meant.
    return declaration(kind).settings.model_validate_json(json.dumps(values, default=str))


_by_name = ContextVar("_by_name", default=False)


@contextmanager
def models_by_name() -> Iterator[None]:
    """Within it a JSON schema has the names of kinds alone, so that none is imported."""
    token = _by_name.set(True)
    try:
        yield
    finally:
        _by_name.reset(token)


class _ByKind:
    """The JSON schema of a model of any kind."""

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        if _by_name.get():
            mapping = {kind: f"#/$defs/{kind}" for kind in installed_kinds()}
            return {"discriminator": {"mapping": mapping, "propertyName": "kind"}}
        classes = tuple(declaration(kind).settings for kind in installed_kinds())
        union: Any = Annotated[Union[classes], Field(discriminator="kind")]  # noqa: UP007  of classes known at run time
        return handler(TypeAdapter(union).core_schema)


AnyModel: TypeAlias = Annotated[SerializeAsAny[ModelSettings], PlainValidator(model_settings), _ByKind()]
"""Settings of a model, which its `kind` names."""
