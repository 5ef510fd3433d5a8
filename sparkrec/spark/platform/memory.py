"""How much memory there is."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Of a container: version 2 of control groups, and 1."""


def bytes_of(text: str) -> float:
    """A size as Spark's settings have it: 512m, 4g, 1024kb, or a number of bytes. Raises ValueError for others."""
    number = text.strip().lower().removesuffix("b")
    unit = number[-1:] if number[-1:] in _UNITS else ""
    return float(number.removesuffix(unit)) * _UNITS[unit]


def driver_memory() -> float:
    """Bytes of memory that this machine has, or this container may use."""
    sizes = [float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    for limit in _LIMITS:
        with suppress(OSError, ValueError):
            sizes.append(float(limit.read_text()))
    return min(sizes)
