"""Integer ids of users and items: given once, never changed.

An id table (`tables.USERS`, `tables.ITEMS`) only grows. New ids are given in a distributed order that does
not depend on partitioning: raw ids fall into buckets by hash, are numbered in order within their bucket, and
each bucket starts where the one before it ends. With three ids in the table already:

    raw   bucket  place in the bucket  bucket starts at  id
    b     0       0                    3                 3
    d     0       1                    3                 4
    a     1       0                    5                 5

Two writers cannot give one id twice: an append that numbers from n is the Delta transaction `ids-from-n`,
which a table takes once. Who comes second appends nothing, looks again, and numbers on from where the first
one ended.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, MapType, StructType

from sparkrec import tables
from sparkrec.errors import InputError, PrepareError
from sparkrec.kernels.arrays import I64
from sparkrec.kernels.ragged import starts_of
from sparkrec.spark.data.numbering import BUCKETS, DistinctIds, NumberIds, PlaceIds
from sparkrec.spark.in_place import carry_out, count, holding
from sparkrec.spark.platform.delta import is_conflict
from sparkrec.spark.platform.few import narrowed
from sparkrec.spark.platform.keeping import checkpointed
from sparkrec.spark.platform.lake import Lake
from sparkrec.spark.runner import Rows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IdTable:
    """An id table at one version."""

    name: str
    id: str
    """Identity of the Delta table: another one at the same path has another."""
    version: int
    frame: DataFrame

    @property
    def pin(self) -> dict[str, str | int]:
        """What a manifest keeps of it."""
        return {"table": self.name, "id": self.id, "version": self.version}


_TABLES = {"user": tables.USERS, "item": tables.ITEMS}


def assign(lake: Lake, name: str, raw: DataFrame, index: str) -> IdTable:
    """The id table once every value of `raw` has its integer there.

    raw    `<index>_id`, long or string, at least one row; repeated values count once
    index  name of the column of integers

    Raises PrepareError when the table holds something else, ids of another type, or was set back in time.
    """
    column = f"{index}_id"

    def unknown(raw: Rows, table: Rows | None) -> DataFrame:
        ids = raw.select(column).distinct()
        return (ids if table is None else ids.without(table, column)).frame()

    appended_from = -1
    while True:
        table, version, start = None, 0, 0
        if lake.has_table(name):
            version = lake.table_version(name)
            table = lake.table(name, version)
            _check(name, table, raw.schema[column].dataType, column, index)
        try:
            with holding() as hold:
                new = hold(carry_out("ids", unknown, raw, table and table.select(column)))
                if table is not None:
                    if count("ids", new) == 0:
                        return IdTable(name, lake.table_id(name), version, table)
                    # At the version that `new` was compared with: if ids came since, the append does nothing.
                    start = table.agg(F.coalesce(F.max(index) + 1, F.lit(0))).collect()[0][0]
                if start == appended_from:
                    raise PrepareError(
                        f"the id table {name!r} in {lake.label} was set back: ids from {start} on have been given "
                        "before, and datasets hold them. Restore its latest version with RESTORE TABLE."
                    )
                lake.append(name, number(new, index, start), f"ids-from-{start}", _TABLES[index])
                appended_from = start
        except Exception as error:
            if not is_conflict(error):
                raise
            log.info("%s: another writer was faster; looking again", name)


def number(raw: DataFrame, index: str, start: int = 0) -> DataFrame:
    """A column of integers from `start` on, without gaps, before the different values of a column without nulls."""
    (column,) = raw.columns

    def plan(ids: Rows) -> DataFrame:
        return numbered(ids, column, start).select(**{index: "number", column: "id"}).frame()

    return carry_out("ids", plan, raw)


def ascending(rows: DataFrame, key: str) -> I64:
    """The values of a column of integers, ascending."""

    def plan(rows: Rows) -> I64:
        return np.sort(rows.table()[key].to_numpy())

    return carry_out("ids", plan, narrowed(rows, key))


def check_ids(kind: DataType, column: str) -> None:
    """Raise InputError for ids of a type that has parts, which cannot be numbered."""
    if isinstance(kind, (ArrayType, MapType, StructType)):
        raise InputError(
            f"{column}: found ids of type {kind.simpleString()}, expected numbers, texts, dates or the like. Make a "
            "text of them, as to_json does."
        )


def numbered(rows: Rows, column: str, start: int = 0) -> Rows:
    """(number, id): the different values of a column without nulls, numbered from `start` on."""
    kind = rows.kind(column)
    ids = rows.select(id=column).map_rows(DistinctIds(kind))
    placed = ids.map_sorted(["bucket"], PlaceIds(kind), then=["id"]).computed()
    sizes = placed.counted("bucket").table()
    size = np.zeros(BUCKETS, np.int64)
    size[sizes["bucket"].to_numpy()] = sizes["n"].to_numpy()
    log.info("%d new values of %s are numbered from %d on", size.sum(), column, start)
    return placed.map_rows(NumberIds(kind, start + starts_of(size)))


def with_strangers(known: DataFrame, events: DataFrame) -> DataFrame:
    """(user, user_id) of the known ones, and of those in `events` (user_id) who are none of them, with numbers behind
    theirs: for the time being."""
    known = known.select("user", "user_id")
    strangers = checkpointed(events.select("user_id").distinct().join(known, "user_id", "left_anti"))
    if strangers.isEmpty():
        return known
    first = known.agg(F.coalesce(F.max("user") + 1, F.lit(0))).collect()[0][0]
    return known.unionByName(number(strangers, "user", first))


def _check(name: str, table: DataFrame, kind: DataType, column: str, index: str) -> None:
    if table.columns != [index, column]:
        raise PrepareError(
            f"table {name!r} is in the place of the ids of {column}: expected columns {index}, {column}, "
            f"found {', '.join(table.columns)}. Ingest the interactions into a table of another name."
        )
    found, expected = kind.simpleString(), table.schema[column].dataType.simpleString()
    if found != expected:
        raise PrepareError(
            f"{column} is {found} in the interactions, but {expected} in their id table {name!r}, and ids "
            "never change. Set id_type at ingest, or ingest into a table of another name."
        )
