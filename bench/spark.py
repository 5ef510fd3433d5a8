"""The session that all contestants on Spark get."""

from __future__ import annotations

import os
import sys
from typing import Any


def session() -> Any:
    """local[2] with `BENCH_MEMORY` (10g) for the JVM; without Delta, which none of them needs here."""
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    settings = {
        "spark.master": "local[2]",
        "spark.driver.memory": os.environ.get("BENCH_MEMORY", "10g"),
        "spark.sql.shuffle.partitions": "8",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        # A row of ours may be a block of factors: a batch of 10,000 of them (Spark's default) would not fit in memory.
        "spark.sql.execution.arrow.maxBytesPerBatch": str(64 << 20),
    }
    return SparkSession.builder.config(map=settings).getOrCreate()
