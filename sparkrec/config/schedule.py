"""When a scheduler runs a night: five fields, as cron has them, in a time zone."""

from __future__ import annotations

import re
from typing import Annotated, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field

from sparkrec.config.base import Settings

_FIELDS = {"minute": (0, 59), "hour": (0, 23), "day of the month": (1, 31), "month": (1, 12), "day of the week": (0, 7)}
_PART = re.compile(r"(?:\*|(?P<first>\d+)-(?P<last>\d+))(?:/(?P<step>[1-9]\d*))?|(?P<only>\d+)")


def cron_values(expression: str) -> list[list[int] | None]:
    """Minutes, hours, days of the month, months and days of the week (0 to 6, from Sunday on) of a cron expression, in
    order; None: any.

    Taken is what all schedulers take alike. Raises ValueError.
    """
    fields = expression.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(
            f"found {len(fields)} field(s), expected five: minute, hour, day of the month, month, day of the week, "
            "as `0 3 * * *` for three at night"
        )
    minute, hour, day, month, weekday = (
        _values(text, name, *bounds) for text, (name, bounds) in zip(fields, _FIELDS.items(), strict=True)
    )
    if day is not None and weekday is not None:
        raise ValueError(
            "found a day of the month and one of the week, which schedulers understand differently. Set one of them, "
            "and the other to *"
        )
    return [minute, hour, day, month, sorted({each % 7 for each in weekday}) if weekday is not None else None]


def _values(text: str, name: str, low: int, high: int) -> list[int] | None:
    if text == "*":
        return None
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"{name}: found {part!r}, expected a number, 1-5, *, */2 or 1-9/2, or these with commas")
        first, last, step, only = match.group("first", "last", "step", "only")
        start, end = int(only or first or low), int(only or last or high)
        if not low <= start <= end <= high:
            raise ValueError(f"{name}: found {part!r}, expected numbers from {low} to {high}, the lower one first")
        found.update(range(start, end + 1, int(step or 1)))
    return sorted(found)


def _cron(expression: str) -> str:
    cron_values(expression)
    return " ".join(expression.split())


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"found {name!r}, expected a name of the tz database, such as Europe/Berlin or UTC") from None
    return name


Cron: TypeAlias = Annotated[str, AfterValidator(_cron)]
TimeZone: TypeAlias = Annotated[str, AfterValidator(_zone)]


class ScheduleSettings(Settings):
    """When a scheduler runs it: `sparkrec schedule render` writes that down for cron, Airflow, Databricks or as a
    script. A run that takes longer than `deadline_hours` is ended."""

    cron: Cron
    """Minute, hour, day of the month, month and day of the week (0 to 7, from Sunday to Sunday), as `0 3 * * *`."""
    timezone: TimeZone = "UTC"
    """Of these times: a name of the tz database, such as Europe/Berlin."""
    retries: int = Field(2, ge=0, le=10)
    """How often a run is tried again that ended by what may pass (exit code 75)."""
    retry_minutes: int = Field(5, ge=1, le=720)
    """Minutes before it is."""
