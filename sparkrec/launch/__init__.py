"""Starts the processes of a training run. Nothing above knows how, and nothing below knows by whom.

A launcher is run(train_fn, job, processes): every process calls train_fn(job, collective), and what the first one
returns comes back. `job.folder` is one that all reach: there a process leaves word of what it failed of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sparkrec import object_stores
from sparkrec.config import TrainingSettings
from sparkrec.errors import ConfigError, TrainError
from sparkrec.launch import horovod, local, torch_distributor
from sparkrec.launch.here import ProcessEnded
from sparkrec.launch.process import first_failure, forget_failures
from sparkrec.training.loop import Job

LAUNCHERS: dict[str, Callable[..., Any]] = {
    "local": local.run,
    "horovod": horovod.run,
    "torch": torch_distributor.run,
}


def runs_here(settings: TrainingSettings) -> bool:
    """Whether the one process of a run is this one."""
    return settings.starter == "local"


def launch(train_fn: Callable[[Any, Any], Any], job: Job, settings: TrainingSettings) -> Any:
    """Run `train_fn` on as many processes as the settings say. Raises TrainError with what the first to fail said."""
    name = settings.starter
    job = replace(job, stores=object_stores.told())
    forget_failures(job, settings.processes)
    try:
        return LAUNCHERS[name](train_fn, job, settings.processes)
    except ConfigError:
        raise
    except ProcessEnded as error:  # unless its guardian says why; what the others say is that it is gone
        raise TrainError(first_failure(job, [error.process_rank]) or str(error)) from error
    except Exception as error:
        told = first_failure(job, range(settings.processes))
        if told is None:
            told = f"{name} ended without a word from any of {settings.processes} processes: {error}"
        raise TrainError(told) from error
