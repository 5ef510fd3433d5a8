"""Running the command line as a process, and killing it."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def command(*arguments: str) -> list[str]:
    """The command line of `sparkrec ARGUMENTS` in this environment."""
    return [sys.executable, "-c", "from sparkrec.cli import main; main()", *arguments]


def kill_when(arguments: list[str], reached, seconds: float = 240) -> None:
    """Start a command and end it and its JVM with SIGKILL as soon as `reached()` is true."""
    log = tempfile.TemporaryFile()  # noqa: SIM115 (a pipe that nobody reads would fill)
    process = subprocess.Popen(arguments, start_new_session=True, stdout=subprocess.DEVNULL, stderr=log)
    deadline = time.monotonic() + seconds
    try:
        while not reached():
            if process.poll() is not None:
                log.seek(0)
                raise AssertionError(f"ended before it was to be killed: {log.read().decode()[-3000:]}")
            assert time.monotonic() < deadline, "never came to the point where it was to be killed"
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


def any_path(folder: str | Path, pattern: str):
    """A condition: something under `folder` matches `pattern`."""
    return lambda: next(Path(folder).glob(pattern), None) is not None
