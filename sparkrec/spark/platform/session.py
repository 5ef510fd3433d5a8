"""The Spark session: the active one when there is one, else a local one, with Delta on board where it is installed."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pyspark
from pyspark.sql import SparkSession

from sparkrec.config import SparkSettings
from sparkrec.spark.platform import delta
from sparkrec.spark.platform.conf import prefer, preferred
from sparkrec.spark.platform.quick_start import java_options, known_jars, remember_jars

_LOOPBACK = "127.0.0.1"
"""Where a local session listens, its web page included: nobody else has a part in it."""
_ARROW = "spark.sql.execution.arrow"
_CLASS_PATH, _JAVA_OPTIONS = "spark.driver.extraClassPath", "spark.driver.extraJavaOptions"


def open_session(settings: SparkSettings = SparkSettings()) -> SparkSession:
    """The active session, or a new one with these settings; either way fit for sparkrec."""
    # Workers must run the driver's Python: another minor version fails at the first task.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    spark = SparkSession.getActiveSession() or _new_session(settings)
    # A block of factors is one row: a batch of 10,000 of them (Spark's default) would not fit in memory.
    prefer(spark, f"{_ARROW}.maxBytesPerBatch", str(64 << 20))
    # Nor would 4096 rows of a Parquet file (Spark's default) that each hold a float for every item.
    prefer(spark, "spark.sql.parquet.columnarReaderBatchSize", "512")
    prefer(spark, "spark.sql.session.timeZone", "UTC")
    return spark


def small_rows(spark: SparkSession) -> AbstractContextManager[None]:
    """Arrow batches of so many rows, whatever their size, in what is planned meanwhile: to look at the size of a batch
    after each row takes Spark 4.2 more time than to move it."""
    sizes = {f"{_ARROW}.maxBytesPerBatch": str((1 << 31) - 1), f"{_ARROW}.maxRecordsPerBatch": "4000"}
    return preferred(spark, sizes)


def _new_session(settings: SparkSettings) -> SparkSession:
    if "SPARK_REMOTE" in os.environ or "PYSPARK_GATEWAY_PORT" in os.environ:
        return SparkSession.builder.getOrCreate()  # Connect, or spark-submit: its JVM runs, its settings hold
    coordinate = delta_coordinate()
    defaults = {
        "spark.master": settings.master,
        "spark.driver.memory": settings.memory,
        "spark.sql.shuffle.partitions": str(settings.shuffle_partitions),
        "spark.sql.warehouse.dir": f"{tempfile.gettempdir()}/sparkrec-warehouse",  # never used, made all the same
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    if coordinate is not None:
        defaults |= {
            "spark.jars.packages": coordinate,
            "spark.sql.extensions": delta.EXTENSION,
            "spark.sql.catalog.spark_catalog": delta.CATALOG,
            # Replaying the log of a small table otherwise takes 50 tasks.
            "spark.databricks.delta.snapshotPartitions": "2",
        }
    conf = defaults | settings.conf
    local = settings.master.startswith("local")
    if local:
        conf = {"spark.driver.bindAddress": _LOOPBACK, "spark.driver.host": _LOOPBACK} | conf
    # Where there are executors, they need the jars, too.
    in_driver = local and not settings.master.startswith("local-cluster")
    own = coordinate if conf.get("spark.jars.packages") == coordinate else None
    jars = known_jars(own) if own is not None else None
    if in_driver and jars is not None:
        del conf["spark.jars.packages"]
        conf[_CLASS_PATH] = os.pathsep.join([*jars, *filter(None, [settings.conf.get(_CLASS_PATH)])])
    if in_driver:
        conf[_JAVA_OPTIONS] = f"{java_options(jars)} {settings.conf.get(_JAVA_OPTIONS, '')}".strip()
    builder = SparkSession.builder.appName("sparkrec")
    for key, value in conf.items():
        builder = builder.config(key, value)
    with _environment("SPARK_LOCAL_IP", _LOOPBACK) if local else nullcontext():
        spark = builder.getOrCreate()
    if in_driver and own is not None and jars is None:
        remember_jars(own, spark)
    return spark


def delta_coordinate() -> str | None:
    """Maven coordinate of the Delta that is installed beside this Spark; None where there is none."""
    own = delta.installed()
    return None if own is None else delta.coordinate(pyspark.__version__, own)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """A variable that the JVM inherits, unless it is set already; of the moment."""
    already = name in os.environ
    os.environ.setdefault(name, value)
    try:
        yield
    finally:
        if not already:
            del os.environ[name]
