"""Random numbers that depend on (seed, id) alone, so that no partitioning of the ids changes them."""

from __future__ import annotations

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: its multiples are far apart."""


def mix64(x: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64 (Steele, Lea and Flood 2014): uint64 of any shape to uint64, bijective."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def uniform(seed: int, ids: np.ndarray) -> np.ndarray:
    """(n,) float64 in [0, 1) for ids (n,) int64."""
    with np.errstate(over="ignore"):
        bits = mix64(ids.astype(np.uint64) * GOLDEN + mix64(np.array([seed & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64)))
    return np.asarray((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def normal_rows(seed: int, ids: np.ndarray, d: int) -> np.ndarray:
    """Standard normal rows (n, d) float32 for ids (n,) int64, by Box and Muller (1958)."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        keys = mix64(ids.astype(np.uint64) * GOLDEN + mix64(np.full(1, seed, dtype=np.uint64)))
        counters = np.arange(1, 2 * d + 1, dtype=np.uint64) * GOLDEN
        bits = mix64(keys[:, None] + counters[None, :])
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log(uniform[:, :d]))
    return (radius * np.cos(2.0 * np.pi * uniform[:, d:])).astype(np.float32)
