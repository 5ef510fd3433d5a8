"""Types of Spark as types of Arrow and back, the same ones whatever the version of Spark.

An instant is microseconds in UTC; what is no instant (timestamp_ntz) has no time zone. Up to 4.1 Spark takes both for
instants unless told otherwise, and from 4.2 on it wants to be told the zone.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

import pyarrow as pa
from pyspark.sql.pandas import types
from pyspark.sql.types import DataType, StructType

_IN_UTC: dict[str, Any] = {"timezone": "UTC"} if "timezone" in signature(types.to_arrow_type).parameters else {}


def to_arrow_type(kind: DataType) -> pa.DataType:
    """The Arrow type that Spark sends values of a type as."""
    return types.to_arrow_type(kind, **_IN_UTC)


def to_arrow_schema(schema: StructType) -> pa.Schema:
    """The Arrow schema that Spark sends rows of a schema as."""
    return types.to_arrow_schema(schema, **_IN_UTC)


def from_arrow_type(kind: pa.DataType) -> DataType:
    """The type of Spark for values of an Arrow type."""
    return types.from_arrow_type(kind, prefer_timestamp_ntz=True)


def from_arrow_schema(schema: pa.Schema) -> StructType:
    """The schema of Spark for rows of an Arrow schema."""
    return types.from_arrow_schema(schema, prefer_timestamp_ntz=True)
