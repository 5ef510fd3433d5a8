"""How many tasks run at once, and sending rows to partitions of our choice by a key that Spark hashes there."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from sparkrec.kernels.arrays import I64
from sparkrec.spark.platform.conf import setting


def task_slots(spark: SparkSession) -> int:
    """How many tasks run at once, as far as Spark says."""
    with suppress(Exception):  # over Connect there is no context, and what takes its place depends on the version
        said = setting(spark, "spark.sql.leafNodeDefaultParallelism")
        return int(said or spark.sparkContext.defaultParallelism)
    at = spark.range(1 << 16).select(F.spark_partition_id().alias("partition"))
    return int(at.agg(F.max("partition")).collect()[0][0]) + 1


def partition_keys(n: int) -> list[int]:
    """n block keys, the lowest, of which Spark's hash partitioning sends each to a partition of its own, of n."""
    candidates = np.arange(20 * n + 100)
    _, first = np.unique(spark_hash(candidates) % n, return_index=True)
    return [int(key) for key in candidates[first]]


def spark_hash(values: I64) -> I64:
    """Spark's `hash` of longs, (n,) int64: Murmur3 of 32 bits (Appleby), seed 42, the low word first."""

    def rotate(x: NDArray[np.uint32], by: int) -> NDArray[np.uint32]:
        return (x << np.uint32(by)) | (x >> np.uint32(32 - by))

    bits = values.astype(np.int64).view(np.uint64)
    state = np.full(len(values), 42, np.uint32)
    with np.errstate(over="ignore"):  # arithmetic modulo 2^32 is meant
        for word in ((bits & np.uint64(0xFFFFFFFF)).astype(np.uint32), (bits >> np.uint64(32)).astype(np.uint32)):
            state ^= rotate(word * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)
            state = rotate(state, 13) * np.uint32(5) + np.uint32(0xE6546B64)
        state ^= np.uint32(8)  # bytes
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            state = (state ^ (state >> np.uint32(shift))) * np.uint32(factor)
    return (state ^ (state >> np.uint32(16))).view(np.int32).astype(np.int64)
