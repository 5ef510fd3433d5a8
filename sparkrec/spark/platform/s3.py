"""What a session knows of S3: how it reaches buckets, and whether two jobs may write to one lake."""

from __future__ import annotations

import logging
import re

from pyspark.sql import SparkSession

from sparkrec.object_stores import PARTS, SECRETS, is_s3
from sparkrec.spark.platform.conf import setting
from sparkrec.spark.platform.delta import on_databricks

log = logging.getLogger(__name__)

_NAME = rf"^fs\.s3a\.(bucket\..+\.)?({'|'.join(map(re.escape, PARTS))})$"
_SINGLE_DRIVER = "S3SingleDriverLogStore"
_warned: set[str] = set()


def session_settings() -> dict[str, str]:
    """The settings `fs.s3a.*` that Spark works with, of those that Python heeds: given to the session, in files of
    Hadoop, by Spark from AWS's variables, or in a credential provider. None where there is no session."""
    session = SparkSession.getActiveSession() or SparkSession._instantiatedSession  # the former is of a thread
    if session is None:
        return {}
    try:
        hadoop = session._jsparkSession.sessionState().newHadoopConf()
        found = dict(hadoop.getValByRegex(_NAME))
        for name in (f"fs.s3a.{part}" for part in SECRETS):
            if name not in found and (password := hadoop.getPassword(name)) is not None:
                found[name] = "".join(password)
    except Exception:  # over Connect, and where a runtime fences the JVM in
        given = {name.removeprefix("spark.hadoop."): value for name, value in session.conf.getAll.items()}
        return {name: value for name, value in given.items() if re.match(_NAME, name)}
    return found


def warn_of_two_writers(spark: SparkSession, lake: str) -> None:
    """Warn once, before something is appended to a lake in S3, where Delta has nobody to tell writers apart."""
    if lake in _warned or not is_s3(lake) or on_databricks():
        return
    _warned.add(lake)
    scheme = lake.partition(":")[0]
    names = (f"spark.delta.logStore.{scheme}.impl", "spark.delta.logStore.class")
    if all(_SINGLE_DRIVER in (setting(spark, name) or _SINGLE_DRIVER) for name in names):
        log.warning(
            "of two jobs that append to one table of %s at the same moment, one may lose its rows: by itself Delta "
            "does not tell writers on S3 apart. Let one job at a time append to it, or set %s on all of them to "
            "io.delta.storage.S3DynamoDBLogStore",
            lake,
            names[0],
        )
