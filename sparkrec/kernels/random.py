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


def spark_hash(*columns: int | np.ndarray) -> np.ndarray:
    """(n,) int64, what Spark's xxhash64 is of longs (n,) int64, in their order, and of numbers that are the same in all
    rows: XXH64 (Collet 2014), where a number of 32 bits counts as an int."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        hashed = np.full(1, 42, np.uint64)
        for column in columns:
            if isinstance(column, np.ndarray):
                hashed = _xxh64_of_long(column.astype(np.int64, copy=False).view(np.uint64), hashed)
            else:
                of = _xxh64_of_int if -(2**31) <= column < 2**31 else _xxh64_of_long
                hashed = of(np.full(1, column, np.int64).view(np.uint64), hashed)
    return hashed.view(np.int64)


_P1, _P2, _P3, _P4, _P5 = (
    np.uint64(each)
    for each in (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
)


def _xxh64_of_long(x: np.ndarray, seed: np.ndarray) -> np.ndarray:
    mixed = (seed + _P5 + np.uint64(8)) ^ (_rotated(x * _P2, 31) * _P1)
    return _avalanche(_rotated(mixed, 27) * _P1 + _P4)


def _xxh64_of_int(x: np.ndarray, seed: np.ndarray) -> np.ndarray:
    mixed = (seed + _P5 + np.uint64(4)) ^ ((x & np.uint64(0xFFFFFFFF)) * _P1)
    return _avalanche(_rotated(mixed, 23) * _P2 + _P3)


def _rotated(x: np.ndarray, bits: int) -> np.ndarray:
    return np.asarray((x << np.uint64(bits)) | (x >> np.uint64(64 - bits)))


def _avalanche(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(33))) * _P2
    x = (x ^ (x >> np.uint64(29))) * _P3
    return np.asarray(x ^ (x >> np.uint64(32)))
