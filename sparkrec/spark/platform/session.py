"""The Spark session: the active one when there is one, else a local one, with Delta on board where it is installed."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pyspark
from pyspark.sql import SparkSession

from sparkrec.config import SparkSettings
from sparkrec.spark.platform import delta, hadoop_aws
from sparkrec.spark.platform.conf import prefer, preferred
from sparkrec.spark.platform.quick_start import java_options, known_jars, remember_jars

_LOOPBACK = "127.0.0.1"
"""Where a local session listens, its web page included: nobody else has a part in it."""
_ARROW = "spark.sql.execution.arrow"
_CLASS_PATH, _JAVA_OPTIONS = "spark.driver.extraClassPath", "spark.driver.extraJavaOptions"
_PACKAGES, _EXCLUDES = "spark.jars.packages", "spark.jars.excludes"


def open_session(settings: SparkSettings = SparkSettings(), s3: bool = False) -> SparkSession:
    """The active session, or a new one with these settings; either way fit for sparkrec.

    s3  whether a new one is to reach s3:// and s3a://, with jars from Maven; so is one whose settings name S3A
    """
    # Workers must run the driver's Python: another minor version fails at the first task.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    spark = SparkSession.getActiveSession() or _new_session(settings, s3)
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


def _new_session(settings: SparkSettings, s3: bool) -> SparkSession:
    if {"SPARK_REMOTE", "PYSPARK_GATEWAY_PORT"} & os.environ.keys() or delta.on_databricks():
        return SparkSession.builder.getOrCreate()  # Connect, or spark-submit: its JVM runs, its settings hold
    coordinate = delta_coordinate()
    of_s3 = hadoop_aws.coordinates() if s3 or any("fs.s3a." in name for name in settings.conf) else []
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
            "spark.sql.extensions": delta.EXTENSION,
            "spark.sql.catalog.spark_catalog": delta.CATALOG,
            # Replaying the log of a small table otherwise takes 50 tasks.
            "spark.databricks.delta.snapshotPartitions": "2",
        }
    if of_s3:
        defaults |= hadoop_aws.settings(settings.conf)
    conf = defaults | settings.conf
    local = settings.master.startswith("local")
    if local:
        conf = {"spark.driver.bindAddress": _LOOPBACK, "spark.driver.host": _LOOPBACK} | conf
    # Where there are executors, they need the jars, too.
    in_driver = local and not settings.master.startswith("local-cluster")
    jars = _Jars(coordinate, of_s3, settings.conf.get(_PACKAGES, ""), in_driver)
    conf |= jars.settings(settings.conf)
    if in_driver:
        conf[_JAVA_OPTIONS] = f"{java_options(jars.of_delta)} {settings.conf.get(_JAVA_OPTIONS, '')}".strip()
    builder = SparkSession.builder.appName("sparkrec")
    for key, value in conf.items():
        builder = builder.config(key, value)
    with _environment("SPARK_LOCAL_IP", _LOOPBACK) if local else nullcontext():
        spark = builder.getOrCreate()
    if in_driver:
        jars.remember(spark)
    return spark


class _Jars:
    """Jars of Delta and of S3A: of those that an earlier session was started with the paths, for the others Ivy.

    Delta's go on the class path, of which the JVM may have an archive; those of S3A do not, to leave it as it is.
    """

    def __init__(self, coordinate: str | None, of_s3: list[str], given: str, in_driver: bool) -> None:
        """`given`: packages that the user names; where they have one of the same group, ours are left out."""
        self._given = [each.strip() for each in given.split(",") if each.strip()]
        groups = {_group(each) for each in self._given}
        sets = ([coordinate] if coordinate else [], of_s3)
        self._sets = {each[0]: each for each in sets if each and _group(each[0]) not in groups}
        known = {name: known_jars(name) if in_driver else None for name in self._sets}
        self._paths = {name: paths for name, paths in known.items() if paths is not None}
        self._asked = [name for name in self._sets if name not in self._paths]
        self.of_delta = self._paths.get(coordinate or "")
        self._of_s3 = self._paths.get(of_s3[0]) if of_s3 else None

    def settings(self, given: Mapping[str, str]) -> dict[str, str]:
        """What a session is told, which has what it is `given` by the user."""
        told = {}
        if self._asked:
            asked = (each for name in self._asked for each in self._sets[name])
            told[_PACKAGES] = ",".join([*self._given, *asked])
            told[_EXCLUDES] = ",".join([hadoop_aws.EXCLUDED, *filter(None, [given.get(_EXCLUDES)])])
        if self.of_delta is not None:
            told[_CLASS_PATH] = os.pathsep.join([*self.of_delta, *filter(None, [given.get(_CLASS_PATH)])])
        if self._of_s3 is not None:
            told["spark.jars"] = ",".join([*self._of_s3, *filter(None, [given.get("spark.jars")])])
        return told

    def remember(self, spark: SparkSession) -> None:
        """Write down what Ivy found; of two sets at once it does not tell which is whose."""
        if len(self._asked) == 1 and not self._given:
            remember_jars(self._asked[0], spark)


def _group(coordinate: str) -> str:
    return coordinate.partition(":")[0]


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
