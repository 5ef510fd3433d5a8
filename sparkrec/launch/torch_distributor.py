"""Processes that pyspark's TorchDistributor starts, for runtimes without Horovod."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparkrec.launch.process import run_here
from sparkrec.launch.slots import check_slots


def run(train_fn: Callable[[Any, Any], Any], job: Any, processes: int) -> Any:
    """Call it in `processes` tasks of one barrier stage, connected by gloo. Raises ConfigError without the slots."""
    from pyspark.ml.torch.distributor import TorchDistributor

    check_slots(processes)
    distributor = TorchDistributor(num_processes=processes, local_mode=False, use_gpu=False)
    return distributor.run(_task, train_fn, job)


def _task(train_fn: Callable[[Any, Any], Any], job: Any) -> Any:
    import torch.distributed as dist

    from sparkrec.training.collective import TorchDistributed

    dist.init_process_group("gloo")
    try:
        return run_here(train_fn, job, TorchDistributed())
    finally:
        dist.destroy_process_group()
