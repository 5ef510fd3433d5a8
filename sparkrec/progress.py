"""Progress of a loop: a bar on a terminal; in a log, the lines that the loop itself writes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

T = TypeVar("T")


def track(steps: Iterable[T], label: str, done: int, total: int, note: Callable[[], str] = lambda: "") -> Iterator[T]:
    """Yield the steps, showing how many of `total` are done, and what `note` says after each; in the main thread alone,
    as what others do at a time has no line of its own."""
    if not sys.stderr.isatty() or threading.current_thread() is not threading.main_thread():
        yield from steps
        return
    from rich.progress import TextColumn, TimeRemainingColumn

    with bar(TimeRemainingColumn(), TextColumn("{task.fields[note]}")) as progress:
        task = progress.add_task(label, total=total, completed=done, note="")
        for step in steps:
            yield step
            progress.update(task, advance=1, note=note())


def bar(*more: ProgressColumn) -> Progress:
    """A bar on the terminal, which is erased when it ends: label, bar, steps and time, then columns of its own."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), *more)
    return Progress(*columns, console=Console(stderr=True), transient=True)
