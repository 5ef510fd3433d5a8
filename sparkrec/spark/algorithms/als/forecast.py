"""What a fit will take: blocks, memory, bytes and seconds, from costs that were measured once.

A half-step of `dst` has B blocks of r = ratings / B ratings, each of which needs about n (1 - exp(-r / n)) of the n src
rows. Its tasks run in waves of one a core, and each takes

    kernel   r (a + b d^2) + rows (c d^2 + e d^3)        the sums of a system, and its solution
    copying  bytes of ratings, factors needed, factors and messages made, between JVM and Python

docs/als.md has the measurements, and forecasts beside real runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sparkrec.spark.algorithms.als.plan import BUCKETS, block_count, block_memory, memory_of_task
from sparkrec.spark.platform.few import HEAP_SHARE

# Seconds, on one core of an AMD EPYC (Zen 4); exact solver.
RATING, RATING_DD = 39e-9, 9.4e-12
ROW_DD, ROW_DDD = 1.2e-9, 1.0e-11
COPIED_BYTE = 6e-9
LAID_OUT_RATING = 2.8e-6
HALF_STEP = 0.35
"""Planning and scheduling by the driver, and"""
TASK = 0.002
"""for each task."""
RATING_BYTES = 20
"""Of a rating that is brought to the driver: two ids, a value."""
STORED = 0.3
"""Share of an executor's memory that holds ratings: Spark's storage half of its 60 percent."""


@dataclass(frozen=True)
class Fit:
    """Users, items, ratings; factors of length rank."""

    users: int
    items: int
    ratings: int
    rank: int


@dataclass(frozen=True)
class Cluster:
    """Executors, each of some cores, bytes of memory, and bytes a second to the others."""

    executors: int
    cores: int
    memory: float
    network: float


@dataclass(frozen=True)
class _HalfStep:
    blocks: int
    ratings: float
    """Of a block, as the following are."""
    rows: float
    needed: float
    held: float
    """Bytes of its ratings."""

    @classmethod
    def of(cls, fit: Fit, n_dst: int, n_src: int, cluster: Cluster) -> _HalfStep:
        slots = cluster.executors * cluster.cores
        blocks = block_count(fit.ratings, n_src, fit.rank, slots, memory_of_task(cluster.memory, cluster.cores))
        ratings, rows = fit.ratings / blocks, n_dst / blocks
        needed = n_src * -math.expm1(-ratings / n_src)
        return cls(blocks, ratings, rows, needed, ratings * (3 if needed <= 1 << 16 else 5) + 8 * rows)


def forecast(fit: Fit, cluster: Cluster) -> dict[str, Any]:
    """Blocks, memory, traffic and time on Spark; with the heap of `gib.driver_heap_for_in_place` the driver does
    without. `limits` has a sentence for everything that will not go well."""
    d, slots = fit.rank, cluster.executors * cluster.cores
    users = _HalfStep.of(fit, fit.users, fit.items, cluster)
    items = _HalfStep.of(fit, fit.items, fit.users, cluster)
    kernel = copying = network = scheduling = shuffled = task = 0.0
    for dst, src in ((users, items), (items, users)):
        waves = math.ceil(dst.blocks / slots)
        solving = dst.ratings * (RATING + RATING_DD * d**2) + dst.rows * (ROW_DD * d**2 + ROW_DDD * d**3)
        messages = dst.blocks * dst.needed * d * 4
        sent = src.blocks * src.needed * d * 4 / dst.blocks  # to the half-step that follows
        kernel += waves * solving
        copying += waves * COPIED_BYTE * (dst.held + dst.needed * d * 4 + dst.rows * d * 4 + sent)
        network += messages * (1 - 1 / cluster.executors) / (cluster.executors * cluster.network)
        scheduling += HALF_STEP + TASK * dst.blocks
        shuffled += messages
        task = max(task, block_memory(dst.ratings, src.rows * src.blocks, d))
    held = users.held * users.blocks + items.held * items.blocks
    seconds = {"kernel": kernel, "copying": copying, "network": network, "scheduling": scheduling}
    may = memory_of_task(cluster.memory, cluster.cores)
    limits = []
    if held > STORED * cluster.memory * cluster.executors:
        limits.append("the ratings do not fit in memory and are read from disk in each iteration")
    most = max(users.blocks, items.blocks)
    if most > BUCKETS:
        limits.append(f"tasks have memory for {most} blocks, and {BUCKETS} are the most there can be: give them more")
    elif most > BUCKETS // 16:
        limits.append(f"blocks become uneven beyond {BUCKETS // 16}: give tasks more memory")
    return {
        "blocks": {"users": users.blocks, "items": items.blocks},
        "gib": {
            "task": _round(task / 2**30),
            "task_may": _round(may / 2**30),
            "held": _round(held / 2**30),
            "shuffled_per_iteration": _round(shuffled / 2**30),
            "driver_heap_for_in_place": _round(fit.ratings * RATING_BYTES * HEAP_SHARE / 2**30),
        },
        "seconds": {
            "layout": _round(fit.ratings * LAID_OUT_RATING / slots),
            "iteration": _round(sum(seconds.values())),
            "of_which": {name: _round(value) for name, value in seconds.items()},
        },
        "limits": limits,
    }


def _round(value: float) -> float:
    return float(f"{value:.2g}")
