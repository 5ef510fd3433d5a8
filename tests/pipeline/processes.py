"""Running the command line as a process, and killing it."""

import contextlib
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


_DIES = """
import importlib, os, signal
module, name = {target!r}.split(":")
module = importlib.import_module(module)
original = getattr(module, name)
def last(*arguments, **more):
    original(*arguments, **more)
    os.killpg(0, signal.SIGKILL)
setattr(module, name, last)
from sparkrec.cli import main; main()
"""


def kill_after(target: str, *arguments: str, seconds: float = 240) -> None:
    """Run a command that, with its JVM, ends by SIGKILL as soon as the function `module:name` has returned once.

    For what is over too quickly to be waited for from outside.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", _DIES.format(target=target), *arguments],
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.wait(timeout=seconds) == -signal.SIGKILL, f"it ended by itself: {target} was not called"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def kill_when(arguments: list[str], reached, seconds: float = 240) -> None:
    """Start a command and end it and its JVM with SIGKILL as soon as `reached()` is true."""
    _signal_when(arguments, reached, signal.SIGKILL, seconds)


def interrupt_when(arguments: list[str], reached, later, seconds: float = 240) -> tuple[int, str]:
    """Start a command and press Ctrl-C as soon as `reached()` is true; its exit code and standard error.

    Once more when it has come to `later()` all the same: Python drops an interrupt that falls into a finalizer.
    """
    return _signal_when(arguments, reached, signal.SIGINT, seconds, later)


def terminate_when(arguments: list[str], reached, seconds: float = 240) -> tuple[int, str]:
    """As `interrupt_when`, with SIGTERM, to the command alone as a scheduler sends it."""
    return _signal_when(arguments, reached, signal.SIGTERM, seconds, group=False)


def _signal_when(
    arguments: list[str], reached, sent: signal.Signals, seconds: float, later=lambda: False, group: bool = True
) -> tuple[int, str]:
    with tempfile.TemporaryFile() as log:  # a pipe that nobody reads would fill
        process = subprocess.Popen(arguments, start_new_session=True, stdout=subprocess.DEVNULL, stderr=log)

        def text() -> str:
            log.seek(0)
            return log.read().decode()

        deadline = time.monotonic() + seconds
        try:
            while not reached():
                assert process.poll() is None, f"ended before it was to be signalled: {text()[-3000:]}"
                assert time.monotonic() < deadline, "never came to the point where it was to be signalled"
                time.sleep(0.02)
            (os.killpg if group else os.kill)(process.pid, sent)
            again, deadline = False, time.monotonic() + 60
            while process.poll() is None and not again and time.monotonic() < deadline:
                time.sleep(0.02)
                again = later()
            if again and process.poll() is None:
                os.killpg(process.pid, sent)
            return process.wait(timeout=60), text()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def any_path(folder: str | Path, pattern: str):
    """A condition: something under `folder` matches `pattern`."""
    return lambda: next(Path(folder).glob(pattern), None) is not None
