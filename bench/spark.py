"""The session that all contestants on Spark get."""

from __future__ import annotations

import os
from typing import Any


def session() -> Any:
    """local[2] with `BENCH_MEMORY` (10g) for the JVM."""
    from sparkrec.config import SparkSettings
    from sparkrec.spark.session import open_session

    memory = os.environ.get("BENCH_MEMORY", "10g")
    return open_session(SparkSettings(master="local[2]", memory=memory, shuffle_partitions=8))
