"""What every process of a run does besides training: leave word of what it failed of."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from sparkrec import object_stores, storage
from sparkrec.errors import SparkrecError
from sparkrec.launch import guardian as guard
from sparkrec.secrets import MaskingFormatter, masked
from sparkrec.training.collective import Collective
from sparkrec.training.loop import Job

LINES = 100


class _LastLines(logging.Handler):
    """The end of a log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=LINES)
        self.setFormatter(MaskingFormatter("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.extend(self.format(record).splitlines())


def run_here(train_fn: Callable[[Job, Collective], Any], job: Job, collective: Collective) -> Any:
    """Call it; whatever it raises is written down in the folder of the job first, with the end of its log."""
    logger, last = logging.getLogger("sparkrec"), _LastLines()
    logger.addHandler(last)
    if not logger.isEnabledFor(logging.INFO):
        logger.setLevel(logging.INFO)

    heartbeat = tempfile.NamedTemporaryFile()  # noqa: SIM115  # as long as the guardian lives
    collective.beat = lambda: os.utime(heartbeat.name)
    guardian = subprocess.Popen(
        [sys.executable, guard.__file__, str(os.getpid()), heartbeat.name,
         str(job.settings.training.stall_seconds), _word(job, collective.process_rank),
         str(collective.process_rank), str(collective.size)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}, stdin=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert guardian.stdin is not None
    with guardian.stdin as stdin:  # where nobody else sees it
        json.dump(object_stores.told(), stdin)
    try:
        return train_fn(job, collective)
    except BaseException as error:
        if not isinstance(error, SparkrecError):
            logger.error("%s", traceback.format_exc())
        leave_word(job, collective.process_rank, collective.size, error, last.lines)
        raise
    finally:
        guardian.kill()
        guardian.wait()
        heartbeat.close()
        logger.removeHandler(last)


def leave_word(job: Job, rank: int, size: int, error: BaseException, log: Iterable[str] = ()) -> None:
    """Write down what a process failed of, and the end of its log."""
    said = {"rank": rank, "size": size, "error": masked(str(error) or repr(error)), "log": list(log)}
    storage.write_json(_word(job, rank), said | {"time": time.time()})


def forget_failures(job: Job, processes: int) -> None:
    """Before a run: what an earlier one said is not its."""
    for rank in range(processes):
        storage.delete(_word(job, rank))


def first_failure(job: Job, ranks: Iterable[int]) -> str | None:
    """What the first of these processes to fail said, and the end of its log; None if none left word."""
    words = [word for rank in ranks if (word := storage.read_json(_word(job, rank)))]
    if not words:
        return None
    first = min(words, key=lambda word: word["time"])
    if first["size"] == 1:
        return str(first["error"])
    tail = "\n".join(["\nThe end of its log:", *first["log"]]) if first["log"] else ""
    return f"process {first['rank']} of {first['size']} failed: {first['error']}{tail}"


def _word(job: Job, rank: int) -> str:
    return f"{job.folder}/failed-{rank:05}.json"
