"""Tables of users and items as buckets take them."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, DoubleType, FloatType, IntegralType, StringType

from sparkrec.spark.evaluation.buckets import FillBuckets
from sparkrec.spark.platform.few import is_here
from sparkrec.spark.platform.sources import column


def for_buckets(
    frame: DataFrame,
    side: int,
    label: str | None = None,
    data: str | None = None,
    auc_share: str | None = None,
    *,
    item: str | None = "item",
) -> tuple[DataFrame, FillBuckets]:
    """A table of which the task makes buckets: ids as `encoded_ids` has them, and columns that have these names.

    Where items are arrays, so are `data` and `auc_share`. Without items, each is 0.
    """
    own = {"user": "user", "item": item, "label": label, "data": data, "auc_share": auc_share}
    columns = {to: name for to, name in own.items() if name is not None}
    lists = "item" in columns and isinstance(frame.schema["item"].dataType, ArrayType)
    if all(_arrow_reads(to, frame.schema[name].dataType) for to, name in columns.items()):
        if is_here(frame):
            return frame, FillBuckets(side, lists, columns)
        plain = [column(name).alias(to) for to, name in columns.items()]
        return frame.select(*plain), FillBuckets(side, lists, {to: to for to in columns})
    kind = "array<double>" if lists else "double"
    read = {"user": encoded_ids(frame, "user"), "item": encoded_ids(frame, "item") if "item" in columns else None}
    read["label"] = column(label).cast("string") if label else None
    read |= {to: column(name).cast(kind) for to, name in (("data", data), ("auc_share", auc_share)) if name}
    made = [each.alias(to) for to, each in read.items() if each is not None]
    return frame.select(*made), FillBuckets(side, lists, {to: to for to in columns})


def _arrow_reads(to: str, kind: DataType) -> bool:
    """Whether a task can read a column as what it is to be, so that it need not be cast before."""
    kind = kind.elementType if isinstance(kind, ArrayType) else kind
    if to == "label":
        return isinstance(kind, StringType)
    return isinstance(kind, IntegralType) or (to in ("data", "auc_share") and isinstance(kind, (FloatType, DoubleType)))


def encoded_ids(frame: DataFrame, name: str) -> Column:
    """A column of ids, or of arrays of ids, as 64-bit integers. Ids that are not integers are hashed."""
    ids, kind = F.col(name), frame.schema[name].dataType
    element = kind.elementType if isinstance(kind, ArrayType) else kind
    if isinstance(element, IntegralType):
        return ids.cast("array<long>" if isinstance(kind, ArrayType) else "long")
    hashed = F.transform(name, _hashed) if isinstance(kind, ArrayType) else _hashed(ids)
    return hashed.alias(name)


def _hashed(ids: Column) -> Column:
    return F.when(ids.isNotNull(), F.xxhash64(ids))
