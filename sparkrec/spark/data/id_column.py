"""A column of ids of any type, and the integers that stand for them inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from sparkrec.errors import InputError
from sparkrec.spark.data.ids import check_ids, number
from sparkrec.spark.data.naming import looked_up, title
from sparkrec.spark.platform.keeping import checkpointed


@dataclass(frozen=True)
class IdColumn:
    """A column of ids, and the numbers that stand for them inside."""

    column: str
    kind: T.DataType
    numbers: DataFrame | None
    """(number long, id); None where the ids are integers already."""

    @classmethod
    def of(cls, frame: DataFrame, key: str, column: str, known: IdColumn | None = None) -> IdColumn:
        """Of all ids in column `key` of a frame, which its user calls `column`; those of `known` keep their numbers."""
        kind = frame.schema[key].dataType
        check_ids(kind, column)
        if known is not None and kind != known.kind:
            found, expected = kind.simpleString(), known.kind.simpleString()
            raise InputError(f"{column}: found ids of type {found}, expected {expected} as in the model")
        if isinstance(kind, T.IntegralType):
            return cls(column, kind, None)
        ids = frame.select(F.col(key).alias("id")).distinct().dropna()
        if known is None or known.numbers is None:
            return cls(column, kind, checkpointed(number(ids, "number")))
        new = ids.join(known.numbers, "id", "left_anti")
        first = known.numbers.agg(F.max("number")).collect()[0][0] + 1
        return cls(column, kind, checkpointed(known.numbers.unionByName(number(new, "number", first))))

    def replace(self, frame: DataFrame, key: str, name: str) -> DataFrame:
        """Column `key` as numbers, called `name`; null where an id is not known."""
        if self.numbers is None:
            return frame.withColumnRenamed(key, name)
        joined = frame.join(self.numbers.withColumnRenamed("id", key), key, "left").drop(key)
        return joined.withColumnRenamed("number", name)

    def restore(self, frame: DataFrame, name: str, to: str) -> DataFrame:
        """The numbers in column `name` as ids, in a first column called `to`."""
        rest = [column for column in frame.columns if column != name]
        if self.numbers is None:
            return frame.select(F.col(name).cast(self.kind).alias(to), *rest)
        named = self.numbers.select(F.col("number").alias(name), F.col("id").alias("_id"))
        return frame.join(named, name).select(F.col("_id").alias(to), *rest)

    def title(self, side: str) -> Callable[[int], str]:
        """What errors call the `side` with a number, as `naming.named` takes it."""
        lookup = looked_up(self.numbers, "number", "id") if self.numbers is not None else int
        return title(side, self.column, lookup)

    def save(self, path: str) -> dict[str, Any]:
        """What `load` needs besides the files."""
        if self.numbers is not None:
            self.numbers.write.mode("overwrite").parquet(path)
        return {"column": self.column, "kind": self.kind.jsonValue(), "numbered": self.numbers is not None}

    @classmethod
    def load(cls, spark: SparkSession, path: str, saved: dict[str, Any]) -> IdColumn:
        kind = T._parse_datatype_json_value(saved["kind"])
        # By place: files of earlier versions call the ids by the column of the user's.
        numbers = spark.read.parquet(path).toDF("number", "id") if saved["numbered"] else None
        return cls(saved["column"], kind, numbers)
