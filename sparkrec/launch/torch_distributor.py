"""Processes that torch connects, for runtimes without Horovod: of this machine for a local session, else those that
pyspark's TorchDistributor starts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

from pyspark.errors import PySparkException

from sparkrec import object_stores
from sparkrec.errors import ConfigError, TrainError
from sparkrec.launch import here
from sparkrec.launch.process import leave_word, run_here
from sparkrec.launch.slots import check_slots


def run(train_fn: Callable[[Any, Any], Any], job: Any, processes: int) -> Any:
    """Call it in `processes` processes, connected by NCCL for GPUs and by gloo otherwise. Raises ConfigError without
    the slots, or a GPU for each process."""
    from pyspark.ml.torch.distributor import TorchDistributor

    session = check_slots(processes)
    gpu = job.settings.training.device == "gpu"
    if interface := here.loopback(session):
        if gpu:
            _check_gpus(processes)
        common = {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface, "WORLD_SIZE": str(processes)}
        environments = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
        with tempfile.TemporaryDirectory(prefix="sparkrec-") as folder:
            return here.run(partial(_task, train_fn, job, f"file://{folder}/rendezvous"), environments)[0]
    try:
        distributor = TorchDistributor(num_processes=processes, local_mode=False, use_gpu=gpu)
    except (RuntimeError, PySparkException) as error:  # what it asks the session for is not there, or not told
        raise ConfigError(
            f"TorchDistributor cannot start training.processes, {processes}, on device {'gpu' if gpu else 'cpu'} in "
            f"this session: {error} Set training.processes to 1, or use a cluster that can."
        ) from error
    return distributor.run(_task, train_fn, job)


def _check_gpus(processes: int) -> None:
    import torch

    found = torch.cuda.device_count()
    if found < processes:
        raise ConfigError(
            f"training.device is gpu and training.processes {processes}, and torch finds {found} GPUs on this machine, "
            "where each process needs one of its own: use fewer processes, or set training.device to cpu"
        )


def _task(
    train_fn: Callable[[Any, Any], Any],
    job: Any,
    rendezvous: str = "env://",
    ready: Callable[[], None] = lambda: None,
) -> Any:
    import torch
    import torch.distributed as dist

    from sparkrec.training.collective import TorchDistributed
    from sparkrec.training.devices import own_device

    object_stores.be_told(job.stores)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        device = own_device(job.settings.training, int(os.environ["LOCAL_RANK"]))
    except TrainError as error:
        leave_word(job, rank, size, error)
        raise
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL takes the current one
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=rendezvous, rank=rank, world_size=size)
    try:
        ready()
        return run_here(train_fn, job, TorchDistributed(device))
    finally:
        dist.destroy_process_group()
