"""Progress of a loop: a bar on a terminal; in a log, the lines that the loop itself writes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def track(steps: Iterable[int], label: str, done: int, total: int) -> Iterator[int]:
    """Yield the steps, showing how many of `total` are done."""
    if not sys.stderr.isatty():
        yield from steps
        return
    from rich.console import Console

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total, completed=done)
        for step in steps:
            yield step
            progress.advance(task)
