"""How rows are kept that are read more than once: by Spark, or in files where a session refuses to keep anything.

Serverless and shared compute let nobody persist or checkpoint. There rows are written to Parquet files under a scratch
folder, which goes when it is let go of, or else with the process. It has to be one that executors reach: SETTING or
the variable SPARKREC_SCRATCH names it; without them it is in the lake that is worked on, or, of a session on this
machine, where temporary files are.
"""

from __future__ import annotations

import atexit
import logging
import os
import tempfile
import uuid
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary, WeakSet

from pyspark import StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from sparkrec import storage
from sparkrec.errors import ConfigError
from sparkrec.spark.platform.conf import is_local, setting
from sparkrec.spark.platform.failures import reason
from sparkrec.spark.platform.sources import column

log = logging.getLogger(__name__)

SETTING, VARIABLE = "spark.sparkrec.scratch", "SPARKREC_SCRATCH"
_refusing: WeakSet[SparkSession] = WeakSet()
_lakes: WeakKeyDictionary[SparkSession, str] = WeakKeyDictionary()
_in_files: WeakKeyDictionary[DataFrame, str] = WeakKeyDictionary()
"""Folders of what was kept in files."""
_roots: set[str] = set()
"""Folders that go with the process."""


def kept(frame: DataFrame, level: StorageLevel | None = None) -> DataFrame:
    """The same rows, kept from when they are first read until `release`."""
    if frame.sparkSession not in _refusing:
        try:
            return frame.persist() if level is None else frame.persist(level)
        except PySparkException as error:
            _refused(frame.sparkSession, error)
    return _stored(frame)


def checkpointed(frame: DataFrame, eager: bool = True) -> DataFrame:
    """The same rows, computed once, now or when they are first read, and cut from their history."""
    if frame.sparkSession not in _refusing:
        try:
            return frame.localCheckpoint(eager)
        except PySparkException as error:
            _refused(frame.sparkSession, error)
    return _stored(frame)


def release(frame: DataFrame) -> None:
    """Let go of rows that `kept` returned."""
    folder = _in_files.pop(frame, None)
    if folder is not None:
        _roots.discard(folder)
        storage.delete(folder)
    elif frame.sparkSession not in _refusing:
        frame.unpersist()


def work_in(spark: SparkSession, lake: str) -> None:
    """Name the folder of the lake that a session works on."""
    _lakes[spark] = lake


def scratch(spark: SparkSession) -> str:
    """A new folder for what is needed for a while, which goes with the process: where this process has its temporary
    files, unless one is known that executors reach."""
    return _new(_root(spark) or tempfile.gettempdir())


def _stored(frame: DataFrame) -> DataFrame:
    root = _root(frame.sparkSession)
    if root is None:
        raise ConfigError(
            f"this session keeps no rows, so that they go to files: set {VARIABLE}, or {SETTING}, to a folder that its "
            "executors reach, such as /Volumes/CATALOG/SCHEMA/VOLUME/scratch."
        )
    folder = _new(root)
    frame.write.parquet(folder)
    rows = frame.sparkSession.read.schema(frame.schema).parquet(folder)
    # Columns anew, as of what is computed: Spark takes files that are joined with themselves for one.
    rows = rows.select(*(column(name).alias(name) for name in rows.columns))
    _in_files[rows] = folder
    return rows


def _root(spark: SparkSession) -> str | None:
    """A folder that executors reach; None where none is known."""
    if named := setting(spark, SETTING) or os.environ.get(VARIABLE):
        return named
    return tempfile.gettempdir() if _is_here(spark) else _lakes.get(spark)


def _new(root: str) -> str:
    folder = f"{root.rstrip('/')}/sparkrec-{uuid.uuid4().hex[:12]}"
    if not _roots:
        atexit.register(_remove)
    _roots.add(folder)
    return folder


def _refused(spark: SparkSession, error: PySparkException) -> None:
    _refusing.add(spark)
    log.warning(
        "this session keeps no rows (%s): they go to files under %s, and what was to stay in its partitions goes over "
        "the network each time",
        reason(error),
        VARIABLE,
    )


def _is_here(spark: SparkSession) -> bool:
    """Whether executors run on this machine."""
    if remote := os.environ.get("SPARK_REMOTE"):
        return urlsplit(remote).hostname in ("localhost", "127.0.0.1", None)
    return is_local(spark)


def _remove() -> None:
    for folder in _roots:
        try:
            storage.delete(folder)
        except OSError as error:
            log.warning("cannot remove %s: %s", folder, error)
