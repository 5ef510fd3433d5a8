"""Where the Delta tables of a lake are: in folders of it, or in a schema of a catalog.

A folder is asked by its files, which needs no job. A catalog says neither where its files are nor that they may be read
by others, so it is asked by SQL; there a table is made with what people look for in one: comments, constraints, and a
clustering by what it is read by.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from pyspark.sql import DataFrame, DataFrameWriter, Row, SparkSession
from pyspark.sql.types import StructType

from sparkrec import storage
from sparkrec.errors import InputError
from sparkrec.spark.platform.delta import is_conflict
from sparkrec.spark.platform.failures import FAILURES, mended, reason
from sparkrec.spark.platform.s3 import warn_of_two_writers
from sparkrec.spark.platform.sources import identifier, quoted
from sparkrec.tables import Table

_COMMIT = re.compile(r"(\d{20})\.(json$|checkpoint)")
_THERE_ALREADY = "DELTA_CONSTRAINT_ALREADY_EXISTS"


class DeltaTables(Protocol):
    """Tables by name."""

    def names(self) -> list[str]:
        """Of all tables."""

    def place(self, name: str) -> str:
        """Where a table is, for people."""

    def quoted(self, name: str) -> str:
        """A table as SQL takes it."""

    def exists(self, name: str) -> bool:
        """Whether there is such a table, of at least one commit."""

    def latest(self, name: str) -> int | None:
        """Version of the last commit; None where there is no such table."""

    def identity(self, name: str) -> str | None:
        """What tells a table from another one that takes its place; None where there is no such table."""

    def size(self, name: str) -> int:
        """Bytes of its files."""

    def read(self, name: str, version: int | None) -> DataFrame:
        """The rows at a version (None: the latest). Raises AnalysisException where the version cannot be read."""

    def append(self, name: str, writer: DataFrameWriter, table: Table | None, rows: DataFrame) -> None:
        """Write `rows`, by their writer, to a table, which they make if it is not there, as `table` has it."""


class FolderTables:
    """Tables in folders below a root."""

    def __init__(self, spark: SparkSession, root: str) -> None:
        self._spark, self._root = spark, root

    def names(self) -> list[str]:
        return [name for name in storage.folders(self._root) if self.exists(name)]

    def place(self, name: str) -> str:
        return f"{self._root}/{name}"

    def quoted(self, name: str) -> str:
        return f"delta.`{self.place(name)}`"

    def exists(self, name: str) -> bool:
        """By a first commit: the log's folder is there earlier, and stays when a writer is killed."""
        return bool(self._commits(name))

    def latest(self, name: str) -> int | None:
        return max(self._commits(name), default=None)

    def identity(self, name: str) -> str | None:
        if (latest := self.latest(name)) is None:
            return None
        # Delta sums each commit up in a file beside it. It need not, and it takes a query to do without.
        summary = storage.read_json(f"{self.place(name)}/_delta_log/{latest:020}.crc") or {}
        if found := summary.get("metadata", {}).get("id"):
            return str(found)
        return str(self._spark.sql(f"DESCRIBE DETAIL {self.quoted(name)}").head()["id"])  # type: ignore[index]

    def size(self, name: str) -> int:
        """With those of versions that were not vacuumed yet."""
        return storage.size(self.place(name))

    def read(self, name: str, version: int | None) -> DataFrame:
        reader = self._spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        frame = reader.load(self.place(name))
        _ = frame.schema  # Connect analyses lazily
        return frame

    def append(self, name: str, writer: DataFrameWriter, table: Table | None, rows: DataFrame) -> None:
        warn_of_two_writers(self._spark, self._root)
        writer.partitionBy(*(table.partition_by if table else ())).save(self.place(name))

    def _commits(self, name: str) -> list[int]:
        """Versions of which a table has the log; not all of them, once it has been cleaned."""
        found = map(_COMMIT.match, storage.files(f"{self.place(name)}/_delta_log"))
        return [int(each[1]) for each in found if each]


class CatalogTables:
    """Tables of a schema, or, by names with dots, of any. Raises InputError where there is no such schema."""

    def __init__(self, spark: SparkSession, schema: str | None = None) -> None:
        self._spark, self._schema = spark, schema
        if schema is None:
            return
        with _asking(schema):
            there = spark.catalog.databaseExists(identifier(schema))
        if not there:
            raise InputError(
                f"there is no schema {schema!r} in the catalog. Make it by CREATE SCHEMA {schema}, or correct "
                "lake.schema."
            )

    def names(self) -> list[str]:
        with _asking(self._schema or ""):
            rows = self._spark.sql(f"SHOW TABLES IN {identifier(self._schema or '')}").collect()
        return [row["tableName"] for row in rows if not row["isTemporary"]]

    def place(self, name: str) -> str:
        return name if "." in name else f"{self._schema}.{name}"

    def quoted(self, name: str) -> str:
        return identifier(self.place(name))

    def exists(self, name: str) -> bool:
        with _asking(self.place(name)):
            return self._spark.catalog.tableExists(self.quoted(name))

    def latest(self, name: str) -> int | None:
        if not self.exists(name):
            return None
        return int(self._first(f"DESCRIBE HISTORY {self.quoted(name)} LIMIT 1", name)["version"])

    def identity(self, name: str) -> str | None:
        if not self.exists(name):
            return None
        return str(self._first(f"DESCRIBE DETAIL {self.quoted(name)}", name)["id"])

    def size(self, name: str) -> int:
        """Of the latest version."""
        return int(self._first(f"DESCRIBE DETAIL {self.quoted(name)}", name)["sizeInBytes"])

    def read(self, name: str, version: int | None) -> DataFrame:
        at = "" if version is None else f" VERSION AS OF {version}"
        frame = self._spark.sql(f"SELECT * FROM {self.quoted(name)}{at}")
        _ = frame.schema
        return frame

    def append(self, name: str, writer: DataFrameWriter, table: Table | None, rows: DataFrame) -> None:
        if table is not None and not self.exists(name):
            self._create(name, table, rows.schema)
        writer.saveAsTable(self.quoted(name))

    def _create(self, name: str, table: Table, schema: StructType) -> None:
        columns = ", ".join(
            f"{quoted(field.name)} {field.dataType.simpleString()}"
            + (" NOT NULL" if field.name in table.required else "")
            + (f" COMMENT {text(table.comments[field.name])}" if field.name in table.comments else "")
            for field in schema
        )
        by = f" CLUSTER BY ({', '.join(map(quoted, table.read_by))})" if table.read_by else ""
        with _asking(self.place(name)):
            self._spark.sql(
                f"CREATE TABLE IF NOT EXISTS {self.quoted(name)} ({columns}) USING delta{by} "
                f"COMMENT {text(table.about)}"
            ).collect()
            for constraint, holds in table.checks.items():
                self._constrain(name, constraint, holds)

    def _constrain(self, name: str, constraint: str, holds: str) -> None:
        try:
            self._spark.sql(f"ALTER TABLE {self.quoted(name)} ADD CONSTRAINT {constraint} CHECK ({holds})").collect()
        except FAILURES as error:
            if _THERE_ALREADY not in str(error):  # of two who make a table, the other was faster
                raise

    def _first(self, query: str, name: str) -> Row:
        with _asking(self.place(name)):
            row = self._spark.sql(query).head()
        assert row is not None
        return row


@contextmanager
def _asking(name: str) -> Iterator[None]:
    """Raise what a catalog says of a table or schema as an InputError, but for what another writer is the cause of."""
    try:
        yield
    except FAILURES as error:
        if is_conflict(error):
            raise
        raise mended(error) or InputError(
            f"the catalog refuses {name}: {reason(error)}. It has to be a Delta table, or a place for one, that "
            "you may use, read and write."
        ) from None


def text(value: str) -> str:
    """A text as SQL takes it."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
