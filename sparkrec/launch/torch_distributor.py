"""Processes that torch connects, for runtimes without Horovod: of this machine for a local session, else those that
pyspark's TorchDistributor starts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

from sparkrec import object_stores
from sparkrec.launch import here
from sparkrec.launch.process import run_here
from sparkrec.launch.slots import check_slots


def run(train_fn: Callable[[Any, Any], Any], job: Any, processes: int) -> Any:
    """Call it in `processes` processes, connected by gloo. Raises ConfigError without the slots."""
    from pyspark.ml.torch.distributor import TorchDistributor

    session = check_slots(processes)
    if interface := here.loopback(session):
        common = {"GLOO_SOCKET_IFNAME": interface, "WORLD_SIZE": str(processes)}
        environments = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
        with tempfile.TemporaryDirectory(prefix="sparkrec-") as folder:
            return here.run(partial(_task, train_fn, job, f"file://{folder}/rendezvous"), environments)[0]
    distributor = TorchDistributor(num_processes=processes, local_mode=False, use_gpu=False)
    return distributor.run(_task, train_fn, job)


def _task(
    train_fn: Callable[[Any, Any], Any],
    job: Any,
    rendezvous: str = "env://",
    ready: Callable[[], None] = lambda: None,
) -> Any:
    import torch.distributed as dist

    from sparkrec.training.collective import TorchDistributed

    object_stores.be_told(job.stores)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=size)
    try:
        ready()
        return run_here(train_fn, job, TorchDistributed())
    finally:
        dist.destroy_process_group()
