"""Many nights of a name, as the tables of the lake have them."""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, TypeAlias

from pyspark.sql import functions as F

from sparkrec import tables
from sparkrec.errors import InputError
from sparkrec.spark.platform.lake import Lake
from sparkrec.stages.ledger import instant_of
from sparkrec.stages.retraining.gate import compared_by
from sparkrec.tables import Table

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Past:
    """What is known of a name: rows as dictionaries, oldest first, whose `at` is of UTC."""

    name: str
    champions: list[Row]
    nights: list[Row]
    checks: list[Row]
    drift: list[Row]

    @classmethod
    def of(cls, lake: Lake, name: str) -> Past:
        """Raises InputError where there is nothing."""

        def rows(table: Table) -> list[Row]:
            if not lake.has_table(table.name):
                return []
            own = lake.table(table.name).where(F.col("name") == name).orderBy("at")
            return [row.asDict() | {"at": instant_of(row, "at")} for row in own.collect()]

        past = cls(name, *map(rows, (tables.CHAMPIONS, tables.RETRAININGS, tables.CHECKS, tables.DRIFT)))
        if not (past.champions or past.nights):
            raise InputError(f"nothing is known of {name!r} in the lake {lake.label}. Run `sparkrec retrain` first.")
        return past

    @property
    def metrics(self) -> list[str]:
        """By which gates compared, such as ndcg@10."""
        return sorted({name for night in self.nights for name in compared_by(night["metrics"] or {})})

    def place(self, at: dt.datetime) -> float:
        """Where an instant is among the nights, of which one is its number: within a night, or half before the next."""
        index = bisect_left([night["at"] for night in self.nights], at)
        if index == len(self.nights):
            return (self.nights[-1]["number"] if self.nights else 0) + 0.5
        night = self.nights[index]
        began = night["at"] - dt.timedelta(seconds=sum((night["seconds"] or {}).values()) + 1)
        number = float(night["number"])
        return number if at >= began else number - 0.5

    def checked(self, night: Row) -> dict[str, Row]:
        """What was looked at in a night, by check: the last of its dataset until then."""
        own = [row for row in self.checks if row["dataset"] == night["dataset"] and row["at"] <= night["at"]]
        return {row["check"]: row for row in own}


def not_training(seconds: dict[str, float] | None) -> float | None:
    """Share of the time of a night in which nothing was trained."""
    total = sum((seconds or {}).values())
    return 1 - (seconds or {}).get("train", 0.0) / total if total else None
