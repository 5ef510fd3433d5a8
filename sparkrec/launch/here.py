"""Processes of this machine, for a session whose tasks would all run here as well.

The driver starts them itself, so that a training of a local session has no service for strangers to find: what starts a
process, and what it returns, goes through a pair of connected sockets that nobody else has.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import wait
from typing import Any

from pyspark import cloudpickle
from pyspark.sql import SparkSession

from sparkrec.errors import TrainError
from sparkrec.launch import child
from sparkrec.launch.slots import context_of

ADDRESS = "127.0.0.1"
START_SECONDS = 120.0
"""Within so many seconds all processes have found one another."""


class ProcessEnded(TrainError):
    """A process ended without a word, as one does that is killed."""

    def __init__(self, process_rank: int, message: str) -> None:
        super().__init__(message)
        self.process_rank = process_rank


def loopback(session: SparkSession) -> str | None:
    """The interface of this machine alone, if all tasks of the session run on it; None if they do not, or it does not
    tell, or there is no interface of the usual names."""
    context = context_of(session)
    master = (context and context.master) or ""
    if master != "local" and not master.startswith("local["):
        return None
    interfaces = {name for _, name in socket.if_nameindex()}
    return next((name for name in ("lo", "lo0") if name in interfaces), None)  # of Linux, of BSD and macOS


def run(call: Callable[[Callable[[], None]], Any], environments: list[dict[str, str]]) -> list[Any]:
    """Call `call(ready)` in a process for each of the environments, which are added to that of this one.

    call  sent by cloudpickle; it calls ready() when its process has found the others

    Returns what each returned. None of the processes, nor of those that they started, outlives this call or this
    process. Raises ProcessEnded where one ends without a word, TrainError where a call raises or is not ready in time.
    """
    processes: list[_Process] = []
    threads = {"OMP_NUM_THREADS": str(max(_cores() // len(environments), 1))}
    try:
        for environment in environments:  # one by one: what has started is ended if the next one fails
            processes.append(  # noqa: PERF401
                _Process({**threads, **os.environ, **environment})
            )
        sent = cloudpickle.dumps(call)
        for process in processes:
            process.send(sent)
        return _results(processes)
    finally:
        for process in processes:
            process.end()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Process:
    """A process, in a group of its own with those that it starts, and the channel to it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.channel, theirs = Pipe()
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, child.__file__, str(theirs.fileno())],
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the driver, which ends the others
            )

    def send(self, call: bytes) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it has ended: whoever listens to it will know
            self.channel.send(sys.path)
            self.channel.send_bytes(call)

    def how_it_ended(self) -> str:
        code = self._popen.wait()
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def end(self) -> None:
        with suppress(ProcessLookupError, PermissionError):  # as macOS says of a group that has ended
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        self.channel.close()


def _results(processes: list[_Process]) -> list[Any]:
    size, deadline = len(processes), time.monotonic() + START_SECONDS
    ready: set[int] = set()
    results: dict[int, Any] = {}
    while len(results) < size:
        ranks: dict[Any, int] = {processes[rank].channel: rank for rank in range(size) if rank not in results}
        arrived = wait(list(ranks), None if len(ready) == size else max(deadline - time.monotonic(), 0.0))
        if not arrived:
            late = ", ".join(str(rank) for rank in range(size) if rank not in ready)
            raise TrainError(f"process {late} of {size} did not find the others within {START_SECONDS:g} s")
        failures: dict[int, str] = {}
        for rank in (ranks[channel] for channel in arrived):
            try:
                what, value = processes[rank].channel.recv()
            except (EOFError, OSError):  # what the others say is for want of this one
                how = processes[rank].how_it_ended()
                raise ProcessEnded(rank, f"process {rank} of {size} {how}, without a word") from None
            ready.add(rank)
            if what != "ready":
                (results if what == "result" else failures)[rank] = value
        for rank, text in failures.items():
            raise TrainError(f"process {rank} of {size} failed:\n{text}")
    return [results[rank] for rank in range(size)]
