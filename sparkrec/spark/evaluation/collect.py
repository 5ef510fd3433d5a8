"""Results as a DataFrame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from sparkrec.spark.platform.arrow_types import to_arrow_schema
from sparkrec.spark.platform.before_spark_4 import from_arrow, schema_of


def result_frame(spark: SparkSession, rows: Sequence[Sequence[Any]], columns: str) -> DataFrame:
    """Rows with the columns of a DDL. They go through Arrow: rows of Python objects would take a job of their own."""
    schema = to_arrow_schema(schema_of(columns))
    table = pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema)
    return from_arrow(spark, table)
