"""This process, alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparkrec.errors import ConfigError
from sparkrec.launch.process import run_here
from sparkrec.training.collective import Alone


def run(train_fn: Callable[[Any, Any], Any], job: Any, processes: int) -> Any:
    """Call it here. Raises ConfigError for more than one process."""
    if processes != 1:
        raise ConfigError(f"training.launcher local runs 1 process, found {processes}: use horovod or torch")
    return run_here(train_fn, job, Alone())
