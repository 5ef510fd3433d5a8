"""One of the processes that `here` starts: python child.py DESCRIPTOR, that of its channel to the driver.

It is run as a file, before sparkrec can be imported: the driver says where its modules are.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection


def serve(driver: Connection) -> None:
    """Call what the driver sends, and say how it went.

    What is received: sys.path of the driver, then the call, pickled. What is sent: ("ready", None) when the call says
    so, then ("result", value) or ("failed", text). When the driver ends, this process and its own children do.
    """
    sys.path[:] = driver.recv()
    call = driver.recv_bytes()
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    try:
        driver.send(("result", pickle.loads(call)(lambda: driver.send(("ready", None)))))
    except BaseException:
        driver.send(("failed", traceback.format_exc()))
    sys.stdout.flush()
    sys.stderr.flush()


def _end_with(driver: Connection) -> None:
    with suppress(OSError, EOFError):
        driver.recv_bytes()  # nothing is sent any more: this waits for the end of the channel
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    with suppress(EOFError, BrokenPipeError):
        serve(Connection(int(sys.argv[1])))
