"""Ends a process that makes no step any more: python guardian.py PID HEARTBEAT SECONDS WORD RANK SIZE

A process that waits for a dead one cannot raise, and one that was stopped cannot even look at the time: so another one
does. HEARTBEAT is a file that the process touches at each step; WORD is where to say why it was ended. The input is
what `object_stores.told` says, as JSON: WORD may be in one.
"""

import json
import os
import signal
import sys
import time
from typing import Any


def guard(pid: int, heartbeat: str, seconds: float, word: str, process_rank: int, size: int, stores: Any) -> None:
    """Until the process ends, or has to be ended."""
    while True:
        time.sleep(min(seconds / 4, 5.0))
        try:
            os.kill(pid, 0)
            silent = time.time() - os.stat(heartbeat).st_mtime
        except OSError:
            return  # it has ended
        if silent > seconds:
            error = f"process {process_rank} made no step for {seconds:g} s: it, or one it waits for, stalls"
            from sparkrec import object_stores, storage

            object_stores.be_told(stores)
            said = {"rank": process_rank, "size": size, "error": error, "log": [], "time": time.time()}
            storage.write_json(word, said)
            os.kill(pid, signal.SIGKILL)
            return


if __name__ == "__main__":
    pid, heartbeat, seconds, word, process_rank, size = sys.argv[1:]
    guard(int(pid), heartbeat, float(seconds), word, int(process_rank), int(size), json.load(sys.stdin))
