"""Processes that Horovod connects: of this machine for a local session, else in the tasks of the active one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from pyspark.sql import SparkSession

from sparkrec import object_stores
from sparkrec.errors import ConfigError
from sparkrec.launch import here
from sparkrec.launch.process import run_here
from sparkrec.launch.slots import check_slots, context_of

INTERFACE = "spark.executorEnv.GLOO_SOCKET_IFNAME"


def run(train_fn: Callable[[Any, Any], Any], job: Any, processes: int) -> Any:
    """Call it in `processes` processes. Raises ConfigError without Horovod or without the slots."""
    try:
        import horovod.spark
    except ImportError:
        raise ConfigError(
            "training.launcher horovod needs Horovod, which is not installed: `make setup` builds it where there is a "
            "C++ compiler. Or leave training.launcher out: torch connects the processes then."
        ) from None
    session = check_slots(processes)
    if context_of(session) is None:
        raise ConfigError(
            "training.launcher horovod starts processes by the SparkContext of a session, and this one has none, as "
            "over Connect and on shared and serverless compute. Set training.launcher to torch, or "
            "training.processes to 1."
        )
    if interface := here.loopback(session):
        with _rendezvous(processes, interface) as environments:
            return here.run(partial(_task, train_fn, job), environments)[0]
    with _told_interface(session) as nics:
        return horovod.spark.run(
            _task, args=(train_fn, job), num_proc=processes, start_timeout=120, verbose=0, nics=nics
        )[0]


def _task(train_fn: Callable[[Any, Any], Any], job: Any, ready: Callable[[], None] = lambda: None) -> Any:
    import horovod.torch as hvd

    from sparkrec.training.collective import Horovod

    object_stores.be_told(job.stores)
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


@contextmanager
def _told_interface(session: SparkSession) -> Iterator[set[str] | None]:
    """The interface by which processes of a cluster are to talk: that of the variable which torch's gloo reads by
    itself. None if it is not set.

    Meanwhile what Horovod starts in the driver listens on that interface alone; Horovod has no setting for it. Raises
    ConfigError where the driver does not have the interface.
    """
    from horovod.runner.common.util import network
    from horovod.runner.http import http_server
    from horovod.runner.util.network import get_driver_ip

    names = session.conf.get(INTERFACE, None)
    if not names:
        yield None
        return
    name = names.split(",")[0].strip()
    try:
        address = get_driver_ip({name})
    except (KeyError, RuntimeError):
        has = ", ".join(each for _, each in socket.if_nameindex())
        raise ConfigError(
            f"{INTERFACE} is {names}, and the driver has no interface {name} with an IPv4 address; it has {has}. "
            "Horovod needs one that has the same name on all machines."
        ) from None

    def find_port(make_server: Callable[[tuple[str, int]], Any]) -> tuple[Any, int]:
        server = make_server((address, 0))
        return server, server.server_address[1]

    before = network.find_port
    try:
        network.find_port = http_server.find_port = find_port
        yield {name}
    finally:
        network.find_port = http_server.find_port = before
