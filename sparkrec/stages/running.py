"""How every stage runs: what of Spark's failures a user can mend is told in a sentence, a terminal has a bar, and a run
that is finished is not done again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from typing import TypeVar

from sparkrec.spark.platform.failures import mendable
from sparkrec.spark.platform.jobs import begun, shown
from sparkrec.spark.platform.lake import Lake, Run

log = logging.getLogger(__name__)

S = TypeVar("S")
R = TypeVar("R")


def stage(bar: str | None = None) -> Callable[[Callable[[S, Lake], R]], Callable[[S, Lake], R]]:
    """Decorate what runs a stage; `bar` is the label of its bar, None for a stage that has one of its own."""

    def decorate(run: Callable[[S, Lake], R]) -> Callable[[S, Lake], R]:
        @wraps(run)
        def running(settings: S, lake: Lake) -> R:
            before = begun(lake.spark)
            with mendable(), shown(lake.spark, bar) if bar else nullcontext():
                result = run(settings, lake)
            if before is not None:
                log.debug("%s: %s jobs of Spark", run.__name__, (begun(lake.spark) or before) - before)
            return result

        return running

    return decorate


def once(
    open_run: Callable[[S, Lake], Run], what: str
) -> Callable[[Callable[[S, Lake, Run], Run]], Callable[[S, Lake], Run]]:
    """Decorate what does the work of a run: a finished run is returned as it is.

    open_run  from the settings to the run they stand for
    what      to call it in the log
    """

    def decorate(work: Callable[[S, Lake, Run], Run]) -> Callable[[S, Lake], Run]:
        @wraps(work)
        def opened(settings: S, lake: Lake) -> Run:
            run = open_run(settings, lake)
            if run.finished:
                log.info("%s %s is there already", what, run.reference)
                return run
            return work(settings, lake, run)

        return opened

    return decorate
