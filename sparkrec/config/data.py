"""What a setting that is left to the data is chosen by."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Optional, TypeVar

from sparkrec.config.base import Settings

T = TypeVar("T")

LEFT: Any = None
"""Default of a setting that is left to the data."""
if TYPE_CHECKING:
    # What fits a model gets its settings from `suited`, after which none of these is None.
    FromData = Annotated[T, LEFT]
else:
    FromData = Optional


class DataFacts(NamedTuple):
    """What is known of the rows that a model is fitted to."""

    users: int
    items: int
    """Of the dataset, those without a row to fit included."""
    rows: int
    explicit: bool
    """Whether values are to be predicted, and not preferences of 1."""
    held_out: str | None = None
    """`values` of the validation split; None: there is none that the fit does not see."""
    confidence: float = 1.0
    """Mean of the rows."""
    deviation: float = 0.0
    """Of the values."""
    values: str = "preferences"
    """As `values_of` says."""

    @property
    def density(self) -> float:
        """Share of the cells of users and items that have a row."""
        return self.rows / max(self.users * self.items, 1)

    @property
    def scarcity(self) -> float:
        """How much more a model must be restrained than in a log of 100,000 rows, from .2 to 2: by the third root of
        the rows. Searches on eleven logs of 4,000 to 1.6 million rows have their best penalties near it."""
        return min(max(math.pow(1e5 / max(self.rows, 1), 1 / 3), 0.2), 2.0)

    @property
    def rows_of_one(self) -> float:
        """Rows of a user and of an item, their geometric mean."""
        return self.rows / math.sqrt(max(self.users * self.items, 1))


def values_of(explicit: bool, different: int, lowest: float) -> str:
    """What the values of rows are: `preferences`, where all are the same; `clicks`, two of which one is zero or less;
    or `ratings`.

    different  values that differ from one another
    """
    if not explicit or different <= 1:
        return "preferences"
    return "clicks" if different == 2 and lowest <= 0 else "ratings"


def significant(value: float) -> float:
    """Three digits: more would claim to know better."""
    return float(f"{value:.3g}")


def chosen(given: Settings, suited: Settings) -> dict[str, object]:
    """The settings that differ between the two, by dotted key: those that were left to the data."""
    found: dict[str, object] = {}
    for name in type(given).model_fields:
        before, after = getattr(given, name), getattr(suited, name)
        if isinstance(before, Settings) and isinstance(after, Settings):
            found |= {f"{name}.{key}": value for key, value in chosen(before, after).items()}
        elif before is None and after is not None:
            found[name] = after.model_dump(mode="json") if isinstance(after, Settings) else after
    return found
