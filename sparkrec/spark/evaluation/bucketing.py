"""Tables of users and items as buckets take them."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, IntegralType

from sparkrec.spark.evaluation.buckets import FillBuckets


def for_buckets(
    frame: DataFrame,
    side: int,
    label: Column | None = None,
    data: Column | None = None,
    auc_share: Column | None = None,
) -> tuple[DataFrame, FillBuckets]:
    """The rows (user, item) of a table, ids as `encoded_ids` has them, and the task that puts them in buckets.

    Where items are arrays, so are `data` and `auc_share`.
    """
    lists = isinstance(frame.schema["item"].dataType, ArrayType)
    kind = "array<double>" if lists else "double"
    columns = [encoded_ids(frame, "user"), encoded_ids(frame, "item")]
    if label is not None:
        columns.append(label.alias("label"))
    for name, numbers in (("data", data), ("auc_share", auc_share)):
        if numbers is not None:
            columns.append(numbers.cast(kind).alias(name))
    return frame.select(*columns), FillBuckets(side, lists)


def encoded_ids(frame: DataFrame, name: str) -> Column:
    """A column of ids, or of arrays of ids, as 64-bit integers. Ids that are not integers are hashed."""
    column, kind = F.col(name), frame.schema[name].dataType
    element = kind.elementType if isinstance(kind, ArrayType) else kind
    if isinstance(element, IntegralType):
        return column.cast("array<long>" if isinstance(kind, ArrayType) else "long")
    hashed = F.transform(name, _hashed) if isinstance(kind, ArrayType) else _hashed(column)
    return hashed.alias(name)


def _hashed(column: Column) -> Column:
    return F.when(column.isNotNull(), F.xxhash64(column))
