"""Ctrl-C and SIGTERM: what was finished is kept, and the run ends in a sentence."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType

ENDED = {
    signal.SIGINT: "interrupted. What was finished is kept; run the same command to go on.",
    signal.SIGTERM: "terminated. What was finished is kept; run the same command to go on.",
}


class Interruption:
    """Ctrl-C reaches the Python workers too, so what ends the run may be a failed job instead of KeyboardInterrupt; and
    so may SIGTERM.

    Where a finalizer runs, and Py4J's run all the time, Python prints what is raised and goes on: raise it again. A
    library may catch it, too, and go on: raise it once more when there has been time to end.
    """

    PATIENCE = 15.0
    """Seconds until it is raised once more."""

    came: signal.Signals | None = None
    """The first one, SIGINT or SIGTERM."""

    def listen(self) -> None:
        self.listen_to(*ENDED, signal.SIGALRM)
        sys.unraisablehook = self._swallowed

    def listen_to(self, *numbers: signal.Signals) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # a task of Databricks may be called in another one, and signals are no business of it
        for number in numbers:
            signal.signal(number, self._came)

    def _came(self, number: int, frame: FrameType | None) -> None:
        if self.came is None and number in ENDED:
            self.came = signal.Signals(number)
            signal.setitimer(signal.ITIMER_REAL, self.PATIENCE, self.PATIENCE)
            logging.disable(logging.ERROR)  # what ends with the run; Py4J tells it to the root logger, too
            # By a thread: Py4J's connection of this one may wait for an answer.
            threading.Thread(target=_silence_spark, daemon=True).start()
        raise KeyboardInterrupt

    def _swallowed(self, unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.05, self.PATIENCE)
        else:
            sys.__unraisablehook__(unraisable)


interruption = Interruption()


def _silence_spark() -> None:
    from pyspark import SparkContext

    with suppress(Exception):  # it may be gone already
        if context := SparkContext._active_spark_context:
            context.setLogLevel("OFF")
