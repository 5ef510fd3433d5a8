"""Spark's Python workers."""

from __future__ import annotations

import gc
import sys

_modules = 0


def set_modules_aside() -> None:
    """Keep the collector of garbage from looking at what modules are made of, which never becomes garbage.

    A worker of Spark collects after each task (`pyspark/daemon.py`), before it takes the next. That takes a tenth of a
    second where numba and pyarrow are imported, two where torch is, for a task that takes a hundredth.
    """
    global _modules
    if len(sys.modules) > _modules:
        _modules = len(sys.modules)
        gc.freeze()
