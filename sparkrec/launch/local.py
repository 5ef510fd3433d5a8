"""This process, alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparkrec.launch.process import run_here
from sparkrec.training.collective import Alone


def run(train_fn: Callable[[Any, Any], Any], job: Any, _processes: int) -> Any:
    """Call it here: one process is all that the settings allow."""
    return run_here(train_fn, job, Alone())
