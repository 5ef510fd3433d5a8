"""Processes that Horovod connects: of this machine for a local session, else in the tasks of the active one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from pyspark.sql import SparkSession

from sparkrec.errors import ConfigError
from sparkrec.launch import here
from sparkrec.launch.process import run_here
from sparkrec.launch.slots import check_slots


def run(train_fn: Callable[[Any, Any], Any], job: Any, processes: int) -> Any:
    """Call it in `processes` processes. Raises ConfigError without Horovod or without the slots."""
    try:
        import horovod.spark
    except ImportError:
        raise ConfigError(
            "training.launcher horovod needs Horovod, which is not installed: `make setup` builds it where there is a "
            "C++ compiler. Or set training.launcher to torch."
        ) from None
    session = check_slots(processes)
    if interface := here.loopback(session):
        with _rendezvous(processes, interface) as environments:
            return here.run(partial(_task, train_fn, job), environments)[0]
    results = horovod.spark.run(
        _task, args=(train_fn, job), num_proc=processes, start_timeout=120, verbose=0, nics=_interfaces(session)
    )
    return results[0]


def _task(train_fn: Callable[[Any, Any], Any], job: Any, ready: Callable[[], None] = lambda: None) -> Any:
    import horovod.torch as hvd

    from sparkrec.training.collective import Horovod

    collective = Horovod()
    ready()
    result = run_here(train_fn, job, collective)
    hvd.shutdown()  # while the others are still there
    return result


@contextmanager
def _rendezvous(processes: int, interface: str) -> Iterator[list[dict[str, str]]]:
    """Where processes of this machine find one another, as Horovod's own launchers have it, but on loopback alone.
    Yields the environment of each."""
    from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
    from horovod.runner.gloo_run import create_run_env_vars, create_slot_env_vars
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    slots = get_host_assignments(parse_hosts(f"localhost:{processes}"), processes)
    with RendezvousHTTPServer((here.ADDRESS, 0), RendezvousHandler, verbose=False) as server:
        server.daemon_threads = True
        server.init(slots)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        common = create_run_env_vars(here.ADDRESS, [interface], str(server.server_port))
        try:
            yield [{**common, **create_slot_env_vars(slot)} for slot in slots]
        finally:
            server.shutdown()


def _interfaces(session: SparkSession) -> set[str] | None:
    """Those of the cluster that processes are told to talk by, in the variable that torch's gloo reads by itself."""
    told = session.conf.get("spark.executorEnv.GLOO_SOCKET_IFNAME", None)
    return set(told.split(",")) if told else None
