"""Whether a session can start so many processes: launchers wait for minutes for slots that will never come."""

from __future__ import annotations

from pyspark import SparkContext
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from sparkrec.errors import ConfigError


def context_of(session: SparkSession) -> SparkContext | None:
    """Its SparkContext; None over Connect, and so on shared and serverless compute."""
    try:
        return session.sparkContext
    except PySparkException:
        return None


def check_slots(processes: int) -> SparkSession:
    """The active session. Raises ConfigError where it has fewer task slots, or there is none; a session without a
    SparkContext does not tell how many it has."""
    session = SparkSession.getActiveSession()
    if session is None:
        raise ConfigError("more than one process needs a Spark session to start them in, and none is active")
    context = context_of(session)
    if context is None:
        return session
    slots = context.defaultParallelism // int(session.conf.get("spark.task.cpus", "1") or 1)
    if slots < processes:
        raise ConfigError(
            f"training.processes is {processes}, and the session at {context.master} runs {slots} tasks at once. Use "
            "fewer processes, or a larger cluster."
        )
    return session
