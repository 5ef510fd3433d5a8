"""Processes that Horovod starts in the tasks of the active Spark session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparkrec.errors import ConfigError
from sparkrec.launch.process import run_here
from sparkrec.launch.slots import check_slots


def run(train_fn: Callable[[Any, Any], Any], job: Any, processes: int) -> Any:
    """Call it in `processes` tasks. Raises ConfigError without Horovod or without the slots."""
    try:
        import horovod.spark
    except ImportError:
        raise ConfigError(
            "training.launcher horovod needs Horovod, which is not installed: `make setup` builds it where there is a "
            "C++ compiler. Or set training.launcher to torch."
        ) from None
    check_slots(processes)
    results = horovod.spark.run(_task, args=(train_fn, job), num_proc=processes, start_timeout=120, verbose=0)
    return results[0]


def _task(train_fn: Callable[[Any, Any], Any], job: Any) -> Any:
    from sparkrec.training.collective import Horovod

    return run_here(train_fn, job, Horovod())
