"""Errors name users and items by the ids that their log has, where what raises them knows numbers alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.errors import SparkrecError

Lookup: TypeAlias = Callable[[int], Any]
"""Number to id; null where there is none."""

_NUMBER = re.compile(r"\b(user|item) number (-?\d+)\b")


@contextmanager
def named(user: Callable[[int], str], item: Callable[[int], str]) -> Iterator[None]:
    """Replace `user number 3` and `item number 3` in errors that are raised within by what `user` and `item` make of 3.

    Errors come from workers and other processes as text, so it is text in which they are looked for.
    """
    try:
        yield
    except SparkrecError as error:
        makes = {"user": user, "item": item}
        text = _NUMBER.sub(lambda found: makes[found[1]](int(found[2])), str(error))
        if text == str(error):
            raise
        raise type(error)(text) from None


def title(side: str, column: str | None, lookup: Lookup) -> Callable[[int], str]:
    """What `named` takes: side, id and, unless it is called as the side, the column of the id."""
    where = f" (column {column!r})" if column not in (None, side) else ""
    return lambda number: f"{side} {lookup(number)!r}{where}"


def looked_up(ids: DataFrame, number: str, column: str) -> Lookup:
    """In a table of numbers and ids."""

    def lookup(wanted: int) -> Any:
        row = ids.where(F.col(number) == wanted).select(column).head()
        return row and row[0]

    return lookup
