"""Bringing the totals of all tasks to the driver, and results back into a DataFrame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from sparkrec.spark.evaluation.totals import KEY, AddItemCounts
from sparkrec.spark.runner import map_sorted


def collect_totals(rows: DataFrame) -> list[Any]:
    """Rows of `totals.SCHEMA` on the driver, counts of items added up before: see `AddItemCounts`."""
    return map_sorted(rows, KEY, AddItemCounts()).collect()


def result_frame(spark: SparkSession, rows: Sequence[Sequence[Any]], columns: str) -> DataFrame:
    """Rows with the columns of a DDL. They go through Arrow: rows of Python objects would take a job of their own."""
    schema = to_arrow_schema(cast(StructType, StructType.fromDDL(columns)))
    return spark.createDataFrame(
        pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema)
    )
