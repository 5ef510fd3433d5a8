"""How every stage runs: what of Spark's failures a user can mend is told in a sentence, and a terminal has a bar."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from typing import TypeVar

from sparkrec.spark.platform.failures import mendable
from sparkrec.spark.platform.jobs import shown
from sparkrec.spark.platform.lake import Lake

S = TypeVar("S")
R = TypeVar("R")


def stage(bar: str | None = None) -> Callable[[Callable[[S, Lake], R]], Callable[[S, Lake], R]]:
    """Decorate what runs a stage; `bar` is the label of its bar, None for a stage that has one of its own."""

    def decorate(run: Callable[[S, Lake], R]) -> Callable[[S, Lake], R]:
        @wraps(run)
        def running(settings: S, lake: Lake) -> R:
            with mendable(), shown(lake.spark, bar) if bar else nullcontext():
                return run(settings, lake)

        return running

    return decorate
