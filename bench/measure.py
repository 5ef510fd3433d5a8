"""One contestant at a time, in a process of its own, and all of them treated alike.

Whoever is compared is warmed up, then run several times, and its median counts. How many threads suit it is found out
first: each number is tried once, and the fastest is what it is measured with. Every row says all of that.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

Row = dict[str, Any]
CORES = len(os.sched_getaffinity(0))
THREADS_OF = ("OMP", "OPENBLAS", "MKL", "NUMBA")  # NAME_NUM_THREADS each


@dataclass(frozen=True)
class Given:
    """How a contestant is run this time."""

    warm_up: int
    """Runs (of training: epochs) that do not count: they compile, start workers and read files for the first time."""
    runs: int
    """Runs whose median counts."""
    threads: int
    trial: bool = False
    """Whether only the number of threads is being chosen: less work will do."""

    def warm(self, work: Callable[[], Any]) -> None:
        """Run what does not count."""
        for _ in range(self.warm_up):
            work()

    def timed(self, work: Callable[[], Any]) -> float:
        """Median seconds of the runs that count."""
        watch, seconds = Stopwatch(), []
        for _ in range(self.runs):
            watch.seconds()
            work()
            seconds.append(watch.seconds())
        return median(seconds)

    def seconds(self, work: Callable[[], Any]) -> float:
        """Warm up, and the median of what counts."""
        self.warm(work)
        return self.timed(work)


@dataclass(frozen=True)
class Treatment:
    """What every contestant of a comparison gets."""

    warm_up: int = 1
    runs: int = 3
    threads: tuple[int, ...] = tuple(sorted({1, CORES}))


QUICK = Treatment(runs=1, threads=(CORES,))
"""To see that all of it runs; a single run is no measurement."""


def best(treatment: Treatment, contestant: Sequence[Sequence[Any]], by: str = "seconds") -> Row:
    """Measure a contestant at its best.

    contestant  the ways to run it that are to be tried: (work, argument, ..) each; `work` also takes a `Given`, as its
                last argument, and returns a row
    by          the entry of the row that tells which way, and which number of threads, is the best one
    """
    ways = [(way, threads) for way in contestant for threads in treatment.threads]
    if len(ways) > 1:
        ways.sort(key=lambda each: _cost(measure(*each[0], Given(treatment.warm_up, 1, each[1], trial=True)), by))
    way, threads = ways[0]
    row = measure(*way, Given(treatment.warm_up, treatment.runs, threads))
    row |= {"threads": threads, "warm_up": treatment.warm_up, "runs": treatment.runs}
    Console(stderr=True).print(row)
    return row


def _cost(row: Row, by: str) -> float:
    Console(stderr=True).print("trial", row)
    return float(-row[by] if by.endswith("per_second") else row[by])


def show(title: str, rows: list[Row], columns: Sequence[str]) -> None:
    """A table of rows, with how each contestant was treated where that is said."""
    table = Table(title=title, title_justify="left")
    treatment = ("peak_gb", "threads", "warm_up", "runs")
    columns = [*columns, *(name for name in treatment if any(name in row for row in rows))]
    for column in columns:
        table.add_column(column, justify="right" if any(isinstance(row.get(column), float) for row in rows) else "left")
    for row in rows:
        values = [row.get(column, "") for column in columns]
        table.add_row(*[f"{each:,.6g}" if isinstance(each, float) else str(each) for each in values])
    Console(width=140).print(table)


def measure(work: Callable[..., Row], *arguments: Any) -> Row:
    """What `work` returns, and `peak_gb`: the most memory that it and its children (a JVM, workers) had at once.

    The last of `arguments` is a `Given`: libraries get its number of threads from the environment.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, work, arguments))  # Horovod's launcher has children
    with _threads(arguments[-1].threads):
        process.start()
    sender.close()
    peak = 0
    try:
        while not receiver.poll(3):  # seconds: looking more often at a large JVM slows it
            if not process.is_alive() and not receiver.poll(0):
                raise RuntimeError(f"{work.__name__} ended with exit code {process.exitcode}")
            peak = max(peak, _memory(process.pid))
        row = receiver.recv()
        if isinstance(row, Exception):
            raise row
    except EOFError:
        raise RuntimeError(f"{work.__name__} ended without a word") from None
    except KeyboardInterrupt:
        process.terminate()
        raise
    finally:
        process.join()
    return {**row, "peak_gb": round(peak / 2**30, 2)}


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """An environment that tells the libraries of a process to be started how many threads to have."""
    before = dict(os.environ)
    os.environ.update({f"{name}_NUM_THREADS": str(n) for name in THREADS_OF}, POLARS_MAX_THREADS=str(n))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _send(sender: Any, work: Callable[..., Row], arguments: tuple[Any, ...]) -> None:
    try:
        sender.send(work(*arguments))
    except Exception as error:
        sender.send(error)
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
