"""The Spark session: the active one when there is one, else a local one with Delta on board."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import delta
import pyspark
from pyspark.sql import SparkSession

from sparkrec.config import SparkSettings
from sparkrec.errors import EnvironmentMismatch
from sparkrec.spark.platform.quick_start import java_options, known_jars, remember_jars

DELTA_FOR_SPARK = {"4.2": "4.4.0"}
"""Pairs of Spark and Delta that this version was tested with."""

_LOOPBACK = "127.0.0.1"
"""Where a local session listens, its web page included: nobody else has a part in it."""
_ARROW = "spark.sql.execution.arrow"
_CLASS_PATH, _JAVA_OPTIONS = "spark.driver.extraClassPath", "spark.driver.extraJavaOptions"
_EXTENSION = "io.delta.sql.DeltaSparkSessionExtension"


def delta_coordinate(spark_version: str = pyspark.__version__) -> str:
    """Maven coordinate of Delta for a version of Spark."""
    minor = ".".join(spark_version.split(".")[:2])
    if minor not in DELTA_FOR_SPARK:
        raise EnvironmentMismatch(
            f"Spark {spark_version} was found; sparkrec is tested with {', '.join(DELTA_FOR_SPARK)}. "
            "Install the pyspark of requirements.lock, or choose that runtime on the cluster."
        )
    return f"io.delta:delta-spark_{minor}_2.13:{DELTA_FOR_SPARK[minor]}"


def check_versions(spark_version: str, delta_version: str) -> None:
    """Refuse a pair of Spark and Delta that fails deep inside the JVM otherwise."""
    expected = delta_coordinate(spark_version).rsplit(":", 1)[1]
    if delta_version != expected:
        raise EnvironmentMismatch(
            f"Delta {delta_version} was found with Spark {spark_version}, which needs Delta {expected}. "
            f"Install delta-spark=={expected} and pass --packages {delta_coordinate(spark_version)}."
        )


def open_session(settings: SparkSettings = SparkSettings()) -> SparkSession:
    """The active session, or a new one with these settings; either way checked and fit for sparkrec."""
    # Workers must run the driver's Python: another minor version fails at the first task.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    spark = SparkSession.getActiveSession() or _new_session(settings)
    require_delta(spark)
    # A block of factors is one row: a batch of 10,000 of them (Spark's default) would not fit in memory.
    spark.conf.set(f"{_ARROW}.maxBytesPerBatch", str(64 << 20))
    # Nor would 4096 rows of a Parquet file (Spark's default) that each hold a float for every item.
    spark.conf.set("spark.sql.parquet.columnarReaderBatchSize", "512")
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    return spark


@contextmanager
def small_rows(spark: SparkSession) -> Iterator[None]:
    """Arrow batches of so many rows, whatever their size, in what is planned meanwhile: to look at the size of a batch
    after each row takes Spark 4.2 more time than to move it."""
    settings = {"maxBytesPerBatch": str((1 << 31) - 1), "maxRecordsPerBatch": "4000"}
    before = {name: spark.conf.get(f"{_ARROW}.{name}") or "" for name in settings}
    try:
        for name, value in settings.items():
            spark.conf.set(f"{_ARROW}.{name}", value)
        yield
    finally:
        for name, value in before.items():
            spark.conf.set(f"{_ARROW}.{name}", value)


def _new_session(settings: SparkSettings) -> SparkSession:
    if "SPARK_REMOTE" in os.environ or "PYSPARK_GATEWAY_PORT" in os.environ:
        return SparkSession.builder.getOrCreate()  # Connect, or spark-submit: its JVM runs, its settings hold
    check_versions(pyspark.__version__, _delta_package_version())
    coordinate = delta_coordinate()
    defaults = {
        "spark.master": settings.master,
        "spark.driver.memory": settings.memory,
        "spark.sql.shuffle.partitions": str(settings.shuffle_partitions),
        "spark.jars.packages": coordinate,
        "spark.sql.extensions": _EXTENSION,
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        # Replaying the log of a small table otherwise takes 50 tasks.
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.warehouse.dir": f"{tempfile.gettempdir()}/sparkrec-warehouse",  # never used, made all the same
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    conf = defaults | settings.conf
    local = settings.master.startswith("local")
    if local:
        conf = {"spark.driver.bindAddress": _LOOPBACK, "spark.driver.host": _LOOPBACK} | conf
    in_driver = local and not settings.master.startswith("local-cluster") and conf["spark.jars.packages"] == coordinate
    if in_driver:  # there are no executors that would need the jars, too
        jars = known_jars(coordinate)
        if jars is not None:
            del conf["spark.jars.packages"]
            conf[_CLASS_PATH] = os.pathsep.join([*jars, *filter(None, [settings.conf.get(_CLASS_PATH)])])
        conf[_JAVA_OPTIONS] = f"{java_options(jars)} {settings.conf.get(_JAVA_OPTIONS, '')}".strip()
    builder = SparkSession.builder.appName("sparkrec")
    for key, value in conf.items():
        builder = builder.config(key, value)
    with _environment("SPARK_LOCAL_IP", _LOOPBACK) if local else nullcontext():
        spark = builder.getOrCreate()
    if in_driver and jars is None:
        remember_jars(coordinate, spark)
    return spark


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


def _delta_package_version() -> str:
    from importlib.metadata import version

    return version(delta.__name__ + "-spark")


def require_delta(spark: SparkSession) -> None:
    """Raise EnvironmentMismatch unless a session has the Delta that fits its Spark."""
    check_versions(spark.version, _delta_package_version())
    if _EXTENSION not in (spark.conf.get("spark.sql.extensions", "") or ""):
        raise EnvironmentMismatch(
            "the Spark session has no Delta. Submit with "
            f"--properties-file conf/spark/local.conf, or with --packages {delta_coordinate(spark.version)} "
            f"--conf spark.sql.extensions={_EXTENSION} "
            "--conf spark.sql.catalog.spark_catalog=org.apache.spark.sql.delta.catalog.DeltaCatalog"
        )
