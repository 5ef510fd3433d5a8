"""One contestant at a time, in a process of its own."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import psutil

Rows = list[dict[str, Any]]


def measure(work: Callable[..., Rows], *arguments: Any) -> Rows:
    """What `work` returns, and `peak_gb`: the most memory that it and its children (a JVM, workers) had at once."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, work, arguments))  # Horovod's launcher has children
    process.start()
    sender.close()
    peak = 0
    try:
        while not receiver.poll(3):  # seconds: looking more often at a large JVM slows it
            if not process.is_alive() and not receiver.poll(0):
                raise RuntimeError(f"{work.__name__} ended with exit code {process.exitcode}")
            peak = max(peak, _memory(process.pid))
        rows = receiver.recv()
    except EOFError:
        raise RuntimeError(f"{work.__name__} ended without a word") from None
    except KeyboardInterrupt:
        process.terminate()
        raise
    finally:
        process.join()
    return [{**row, "peak_gb": round(peak / 2**30, 2)} for row in rows]


def _send(sender: Any, work: Callable[..., Rows], arguments: tuple[Any, ...]) -> None:
    sender.send(work(*arguments))
    sender.close()


def _memory(pid: int | None) -> int:
    """Proportional share of what the process tree holds: workers that were forked share their parent's pages."""
    total = 0
    try:
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for each in tree:
        try:
            total += each.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


class Stopwatch:
    """Seconds since the last look."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def seconds(self) -> float:
        """And start anew."""
        now = time.perf_counter()
        passed, self._since = now - self._since, now
        return passed
