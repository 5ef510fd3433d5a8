"""Tables to which numbered rows are added by whoever is first: what one has decided, no other decides, too."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from sparkrec.spark.platform.lake import Lake
from sparkrec.tables import Table


class Ledger:
    """The rows of one name in a table with `name`, `number`, `token` and `at`: the one with the highest number counts.

    A row is added under the number after the last one that the writer has seen. Delta takes one commit for each number,
    so that of two writers one finds the row of the other, and has to look again.
    """

    def __init__(self, lake: Lake, table: Table, name: str) -> None:
        self._lake, self._table, self._name = lake, table, name

    def rows(self) -> list[Row]:
        """All, oldest first."""
        if not self._lake.has_table(self._table.name):
            return []
        return self._own().orderBy("number").collect()

    def latest(self) -> Row | None:
        """The row that counts; None where there is none."""
        rows = self.rows()
        return rows[-1] if rows else None

    def add(self, number: int, **values: Any) -> Row | None:
        """Add the row of a number; None where another writer was first."""
        token = uuid.uuid4().hex
        now = dt.datetime.now(dt.timezone.utc)
        row = {"name": self._name, "number": number, "token": token, "at": now, **values}
        self._lake.add_rows(self._table, [row], f"{self._table.name}:{self._name}:{number}")
        (written,) = self._own().where(F.col("number") == number).collect()
        return written if written["token"] == token else None

    def add_after(self, last: Row | None, **values: Any) -> Row | None:
        """Add the row that follows the last one that the writer has seen; None where another writer was first."""
        return self.add(last["number"] + 1 if last is not None else 1, **values)

    def _own(self) -> DataFrame:
        return self._lake.table(self._table.name).where(F.col("name") == self._name)


def instant_of(row: Row, name: str) -> dt.datetime:
    """A column of time: Spark gives it in the zone of the driver, without saying so."""
    found: dt.datetime = row[name]
    return found.astimezone(dt.timezone.utc)
