"""Floats of few different values, such as ratings and counts, in a byte each."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sparkrec.kernels.arrays import F32, frozen

LEVELS = 256
"""Most values that a byte tells apart."""


def coded(values: F32) -> tuple[F32, NDArray[np.uint8]] | None:
    """(LEVELS,) float32 and (n,) uint8 with `levels[codes]` the same bits as `values`; None if they are too many."""
    levels, codes = np.zeros(LEVELS, np.uint32), np.empty(len(values), np.uint8)
    bits = frozen(values, np.float32, "values").view(np.uint32)
    return (levels.view(np.float32), codes) if _code(bits, levels, codes) else None


@njit(cache=True, nogil=True)
def _code(bits: NDArray[np.uint32], levels: NDArray[np.uint32], codes: NDArray[np.uint8]) -> bool:
    table = np.full(4 * LEVELS, -1, np.int16)  # open addressing, at most a quarter full
    n = 0
    for at in range(len(bits)):
        slot = np.int64(np.uint32(bits[at] * np.uint32(0x9E3779B1)) >> np.uint32(22))  # 10 bits: Fibonacci hashing
        while table[slot] >= 0 and levels[table[slot]] != bits[at]:
            slot = (slot + 1) % len(table)
        if table[slot] < 0:
            if n == LEVELS:
                return False
            table[slot], levels[n] = n, bits[at]
            n += 1
        codes[at] = table[slot]
    return True
