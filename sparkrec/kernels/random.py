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


def spark_hash(seed: int, ids: np.ndarray) -> np.ndarray:
    """(n,) int64, what Spark's xxhash64(seed, id) is for ids (n,) int64: XXH64 (Collet 2014) of a literal, an int where
    32 bits hold it, and of a long."""
    p1, p2, p3, p4, p5 = (
        np.uint64(each)
        for each in (
            0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5,
        )
    )  # fmt: skip

    def rotated(x: np.ndarray, bits: int) -> np.ndarray:
        return np.asarray((x << np.uint64(bits)) | (x >> np.uint64(64 - bits)))

    def finished(x: np.ndarray) -> np.ndarray:
        x = (x ^ (x >> np.uint64(33))) * p2
        x = (x ^ (x >> np.uint64(29))) * p3
        return np.asarray(x ^ (x >> np.uint64(32)))

    def of_long(x: np.ndarray, before: np.ndarray) -> np.ndarray:
        mixed = (before + p5 + np.uint64(8)) ^ (rotated(x * p2, 31) * p1)
        return finished(rotated(mixed, 27) * p1 + p4)

    def of_int(x: np.ndarray, before: np.ndarray) -> np.ndarray:
        mixed = (before + p5 + np.uint64(4)) ^ ((x & np.uint64(0xFFFFFFFF)) * p1)
        return finished(rotated(mixed, 23) * p2 + p3)

    first = np.full(1, seed, np.int64).view(np.uint64)
    start = np.full(1, 42, np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        before = of_int(first, start) if -(2**31) <= seed < 2**31 else of_long(first, start)
        return np.asarray(of_long(ids.astype(np.int64, copy=False).view(np.uint64), before).view(np.int64))
