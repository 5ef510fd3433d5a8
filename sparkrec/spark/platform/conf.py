"""Settings of a session: serverless and shared compute refuse all but a few, and work goes on without them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from sparkrec.spark.platform.failures import reason

log = logging.getLogger(__name__)


def setting(spark: SparkSession, name: str, default: str | None = None) -> str | None:
    """A setting; the default where it is not set, or the session does not tell."""
    try:
        found = spark.conf.get(name, default)
    except PySparkException:
        return default
    return None if found is None else str(found)


def is_local(spark: SparkSession) -> bool:
    """Whether the master of a session is this machine, as far as it tells."""
    return (setting(spark, "spark.master") or "").startswith("local")


def prefer(spark: SparkSession, name: str, value: str | None) -> None:
    """Set a setting, or take it back where `value` is None, unless the session refuses that."""
    try:
        if value is None:
            spark.conf.unset(name)
        else:
            spark.conf.set(name, value)
    except PySparkException as error:
        log.debug("%s stays as it is: %s", name, reason(error))


@contextmanager
def preferred(spark: SparkSession, settings: Mapping[str, str]) -> Iterator[None]:
    """Settings of a session while the body runs, as `prefer` sets them; afterwards they are what they were."""
    before = {name: setting(spark, name) for name in settings}
    try:
        for name, value in settings.items():
            prefer(spark, name, value)
        yield
    finally:
        for name, old in before.items():
            prefer(spark, name, old)
