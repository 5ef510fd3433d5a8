"""Results as a DataFrame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from sparkrec.spark.platform.arrow_types import to_arrow_schema


def result_frame(spark: SparkSession, rows: Sequence[Sequence[Any]], columns: str) -> DataFrame:
    """Rows with the columns of a DDL. They go through Arrow: rows of Python objects would take a job of their own."""
    schema = to_arrow_schema(cast(StructType, StructType.fromDDL(columns)))
    return spark.createDataFrame(
        pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema)
    )
