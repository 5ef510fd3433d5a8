"""XXH64 (Collet 2014) as Spark's function xxhash64 computes it, so that what is hashed here and there is the same."""

from __future__ import annotations

import numpy as np
from numba import njit

from sparkrec.kernels.arrays import I64

_SEED = np.uint64(42)
"""With which Spark begins."""


def spark_hash(*columns: int | np.ndarray) -> np.ndarray:
    """(n,) int64, what Spark's xxhash64 is of longs (n,) int64, in their order, and of numbers that are the same in all
    rows, where one of 32 bits counts as an int."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        hashed = np.full(1, _SEED)
        for column in columns:
            if isinstance(column, np.ndarray):
                hashed = _xxh64_of_long(column.astype(np.int64, copy=False).view(np.uint64), hashed)
            else:
                of = _xxh64_of_int if -(2**31) <= column < 2**31 else _xxh64_of_long
                hashed = of(np.full(1, column, np.int64).view(np.uint64), hashed)
    return hashed.view(np.int64)


def spark_hash_of_texts(start: I64, data: np.ndarray) -> np.ndarray:
    """(n,) int64, what Spark's xxhash64 is of each text or binary value.

    start  (n + 1,), where each begins in `data`, and the last ends
    data   uint8, all bytes
    """
    return _of_texts(start, data).view(np.int64)


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


@njit(cache=True, nogil=True)
def _of_texts(start: I64, data: np.ndarray) -> np.ndarray:
    found = np.empty(len(start) - 1, np.uint64)
    for at in range(len(found)):
        found[at] = _xxh64(data, start[at], start[at + 1])
    return found


@njit(cache=True, nogil=True)
def _xxh64(data: np.ndarray, at: int, stop: int) -> np.uint64:
    length = stop - at
    if length >= 32:
        a, b, c, d = _SEED + _P1 + _P2, _SEED + _P2, _SEED, _SEED - _P1
        while stop - at >= 32:
            a, b = _round(a, _word(data, at, 8)), _round(b, _word(data, at + 8, 8))
            c, d = _round(c, _word(data, at + 16, 8)), _round(d, _word(data, at + 24, 8))
            at += 32
        mixed = _turned(a, 1) + _turned(b, 7) + _turned(c, 12) + _turned(d, 18)
        for lane in (a, b, c, d):
            mixed = (mixed ^ _round(np.uint64(0), lane)) * _P1 + _P4
    else:
        mixed = _SEED + _P5
    mixed += np.uint64(length)
    while stop - at >= 8:
        mixed = _turned(mixed ^ _round(np.uint64(0), _word(data, at, 8)), 27) * _P1 + _P4
        at += 8
    if stop - at >= 4:
        mixed = _turned(mixed ^ (_word(data, at, 4) * _P1), 23) * _P2 + _P3
        at += 4
    while at < stop:
        mixed = _turned(mixed ^ (np.uint64(data[at]) * _P5), 11) * _P1
        at += 1
    mixed = (mixed ^ (mixed >> np.uint64(33))) * _P2
    mixed = (mixed ^ (mixed >> np.uint64(29))) * _P3
    return mixed ^ (mixed >> np.uint64(32))


@njit(cache=True, nogil=True)
def _word(data: np.ndarray, at: int, size: int) -> np.uint64:
    """An unsigned number of so many bytes, the least first."""
    word = np.uint64(0)
    for byte in range(size):
        word |= np.uint64(data[at + byte]) << np.uint64(8 * byte)
    return word


@njit(cache=True, nogil=True)
def _round(lane: np.uint64, word: np.uint64) -> np.uint64:
    return _turned(lane + word * _P2, 31) * _P1


@njit(cache=True, nogil=True)
def _turned(x: np.uint64, bits: int) -> np.uint64:
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))
