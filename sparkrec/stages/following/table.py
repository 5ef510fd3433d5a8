"""A table that is followed: a Delta table by its change data feed if it has one, any other by comparing."""

from __future__ import annotations

import re

from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from sparkrec.config import IngestSettings
from sparkrec.spark.platform.failures import FAILURES, reason
from sparkrec.spark.platform.lake import Lake
from sparkrec.spark.platform.sources import identifier, quoted, read_log, whole_path
from sparkrec.stages.batches import Batch
from sparkrec.stages.following.steps import CHANGES, COMPARED, Covers, Superseded, gap, write_step

_NO_FEED = "DELTA_MISSING_CHANGE_DATA"
_LOST = re.compile(r"FILE_NOT_EXIST|FILE_NOT_FOUND|FileNotFound|VERSION_NOT|VersionNotFound|INCOMPATIBLE|LOG_")
_COME, _GONE = ("insert", "update_postimage"), ("delete", "update_preimage")
_OF_FEED = ("_change_type", "_commit_version", "_commit_timestamp")


class SourceTable:
    """A table as the source of a table of interactions."""

    def __init__(self, settings: IngestSettings, lake: Lake) -> None:
        self._settings, self._lake, self._source = settings, lake, settings.source

    def next_step(self, done: Row | None) -> Covers | None:
        now = self._position()
        if done is None or now.version is None:
            return now
        if done["source_id"] != now.source_id:
            gap(self._settings, "it was dropped and made again, or is another table now")
            return now
        if now.version == done["version"]:
            return None
        if now.version < done["version"]:
            gap(self._settings, f"it is at version {now.version}, and was followed up to version {done['version']}")
            return now
        return now._replace(how=CHANGES) if self._has_feed() else now

    def carry_out(self, step: Row, done: Row | None) -> Batch:
        if step["how"] == COMPARED:
            return write_step(self._settings, self._lake, step["number"], self._at(step["version"]), None, whole=True)
        assert done is not None
        try:
            feed = self._feed(done["version"] + 1, step["version"])
            come, gone = (feed.where(F.col("_change_type").isin(*kinds)).drop(*_OF_FEED) for kinds in (_COME, _GONE))
            return write_step(self._settings, self._lake, step["number"], come, gone, whole=False)
        except FAILURES as error:
            if _NO_FEED not in str(error):  # the feed was begun later
                if not _LOST.search(str(error)):
                    raise
                gap(self._settings, f"what changed since version {done['version']} cannot be read ({reason(error)})")
            raise Superseded(self._position()) from None

    def _name(self) -> str:
        """As SQL takes it."""
        if self._source.table:
            return identifier(self._source.table)
        assert self._source.path is not None
        return f"delta.{quoted(whole_path(self._source.path))}"

    def _position(self) -> Covers:
        """Where the table is now, to be compared; without a version where it is no Delta table."""
        read_log(self._lake.spark, self._source)  # says what is wrong with it
        try:
            (detail,) = self._lake.spark.sql(f"DESCRIBE DETAIL {self._name()}").select("id", "format").collect()
            if detail["format"] != "delta":
                return Covers(COMPARED)
            (latest,) = self._lake.spark.sql(f"DESCRIBE HISTORY {self._name()} LIMIT 1").select("version").collect()
        except PySparkException:  # a view, or a table of another format
            return Covers(COMPARED)
        return Covers(COMPARED, detail["id"], latest["version"])

    def _has_feed(self) -> bool:
        (detail,) = self._lake.spark.sql(f"DESCRIBE DETAIL {self._name()}").select("properties").collect()
        return bool(detail["properties"].get("delta.enableChangeDataFeed") == "true")

    def _at(self, version: int | None) -> DataFrame:
        """The rows at a version. Raises Superseded where they are gone, and others are there."""
        if version is None:
            return read_log(self._lake.spark, self._source)
        try:
            rows = self._lake.spark.sql(f"SELECT * FROM {self._name()} VERSION AS OF {version}")
            _ = rows.schema
        except AnalysisException as error:
            now = self._position()
            if now.version == version:
                raise
            raise Superseded(now) from error
        return rows

    def _feed(self, first: int, last: int) -> DataFrame:
        """The changes of versions, each row with the columns `_OF_FEED`."""
        options = {"readChangeFeed": "true", "startingVersion": str(first), "endingVersion": str(last)}
        reader = self._lake.spark.read.format("delta").options(**self._source.options, **options)
        if self._source.table:
            return reader.table(identifier(self._source.table))
        return reader.load(self._source.path)
