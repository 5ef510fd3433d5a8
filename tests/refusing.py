"""A Connect session that refuses what serverless and shared compute refuse, since no such machine is at hand."""

import sys

from pyspark.errors import AnalysisException
from pyspark.sql.connect.conf import RuntimeConf
from pyspark.sql.connect.dataframe import DataFrame

ALLOWED = {
    "spark.sql.ansi.enabled",
    "spark.sql.files.maxPartitionBytes",
    "spark.sql.legacy.timeParserPolicy",
    "spark.sql.session.timeZone",
    "spark.sql.shuffle.partitions",
}
"""Settings that serverless compute of Databricks lets a session read and write."""


def refuse():
    """From now on, in this process, no session keeps rows, and of settings there are no more than ALLOWED."""

    def keep(what):
        def refused(*_, **__):
            raise AnalysisException(f"[NOT_SUPPORTED_WITH_SERVERLESS] {what} is not supported on serverless compute.")

        return refused

    for name in ("persist", "cache", "unpersist"):
        setattr(DataFrame, name, keep("PERSIST TABLE"))
    for name in ("checkpoint", "localCheckpoint"):
        setattr(DataFrame, name, keep("CHECKPOINT"))
    DataFrame.rdd = property(keep("RDD"))

    def limited(method):
        def called(self, key, *more):
            asked_by = sys._getframe(1).f_globals["__name__"]
            if key not in ALLOWED and not asked_by.startswith("pyspark."):
                raise AnalysisException(f"[CONFIG_NOT_AVAILABLE] Configuration {key} is not available.")
            return method(self, key, *more)

        return called

    for name in ("get", "set", "unset"):
        setattr(RuntimeConf, name, limited(getattr(RuntimeConf, name)))
    RuntimeConf.getAll = property(keep("ALL"))
