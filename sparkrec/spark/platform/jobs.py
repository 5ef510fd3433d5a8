"""What Spark is doing: how many jobs began, and on a terminal a bar of the tasks that are done of those that run."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pyspark.sql import SparkSession

from sparkrec.progress import bar

if TYPE_CHECKING:
    from pyspark import StatusTracker

_SECONDS = 0.25


@contextmanager
def shown(spark: SparkSession, label: str) -> Iterator[None]:
    """Show the tasks of Spark's running stages while the body runs: on a terminal only, and not over Spark Connect,
    which does not tell. It never makes the body fail."""
    tracker = _tracker(spark) if sys.stderr.isatty() else None
    if tracker is None:
        yield
        return
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(tracker, label, ended), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join(timeout=5)


def begun(spark: SparkSession) -> int | None:
    """Jobs that have begun in the life of a session; None over Spark Connect, which does not tell."""
    with suppress(Exception):
        return int(str(spark.sparkContext._jsc.sc().dagScheduler().nextJobId()))
    return None


def _tracker(spark: SparkSession) -> StatusTracker | None:
    with suppress(Exception):
        return spark.sparkContext.statusTracker()
    return None


def _watch(tracker: StatusTracker, label: str, ended: threading.Event) -> None:
    with suppress(Exception), bar() as progress:
        task = progress.add_task(label, total=None)
        while not ended.wait(_SECONDS):
            done, total = _tasks(tracker)
            progress.update(task, completed=done, total=total or None)


def _tasks(tracker: StatusTracker) -> tuple[int, int]:
    """Finished tasks, and all, of the stages that run."""
    stages = [tracker.getStageInfo(number) for number in tracker.getActiveStageIds()]
    running = [stage for stage in stages if stage is not None]
    return sum(stage.numCompletedTasks for stage in running), sum(stage.numTasks for stage in running)
