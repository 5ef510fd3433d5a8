"""What metrics need to know of items, on the driver: a few numbers of each."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import IntegralType

from sparkrec.errors import EvaluateError
from sparkrec.kernels.arrays import F32, F64
from sparkrec.kernels.metrics.measures import ItemFacts
from sparkrec.kernels.ragged import Ragged
from sparkrec.spark.arrow.blocks import read_lists
from sparkrec.spark.evaluation.bucketing import encoded_ids
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.platform.few import narrowed
from sparkrec.spark.runner import Rows

_NONE = np.zeros(0, np.int64)
NO_ITEMS = ItemFacts(_NONE, np.zeros(0), _NONE, np.zeros((0, 0), np.float32), (np.zeros(1, np.int64), _NONE))


def item_facts(items: DataFrame | None, before: DataFrame | None) -> ItemFacts:
    """Of (item, popularity, vector, categories), the last three where they are there, and of (user, item) that came
    before; either may be None. Popularity is the share of users before who had an item, at least one of them, so that
    its surprise is finite."""
    if items is None and before is None:
        return NO_ITEMS

    def plan(items: Rows | None, before: Rows | None) -> tuple[pa.Table, int]:
        users, counted = 1, None
        if before is not None:
            pairs = before.select("user", "item").distinct()
            users, counted = max(pairs.select("user").distinct().count(), 1), pairs.counted("item")
        if items is None:
            assert counted is not None
            return counted.table(), users
        if counted is None:
            return items.filled(n=pa.scalar(1, pa.int64())).table(), users
        return items.joined(counted, "item", every=True).table(), users

    table, users = carry_out(
        "metrics", plan, items and _with_categories(items), before and _encoded(before, "user", "item")
    )
    table = table.sort_by("item").combine_chunks()
    ids = table["item"].cast(pa.int64()).to_numpy()
    if table["item"].null_count or (ids[1:] == ids[:-1]).any():
        raise EvaluateError("items: found an item that is null or comes more than once, expected each once")
    n: F64 = table["n"].combine_chunks().fill_null(1).to_numpy().astype(np.float64)
    vectors = _vectors(table) if "vector" in table.column_names else np.zeros((len(ids), 0), np.float32)
    categories = np.zeros(len(ids) + 1, np.int64), _NONE
    if "categories" in table.column_names:
        column = table["categories"].combine_chunks()
        codes = column.flatten().dictionary_encode().indices.to_numpy().astype(np.int64)
        categories = Ragged.of_lengths(pc.list_value_length(column).fill_null(0).to_numpy(), codes)
    share = table["popularity"].to_numpy() if "popularity" in table.column_names else np.maximum(n, 1.0) / users
    place = np.empty(len(ids), np.int64)
    place[np.argsort(-share, kind="stable")] = np.arange(1, len(ids) + 1)
    return ItemFacts(ids, share, place, vectors, categories)


def _with_categories(items: DataFrame) -> DataFrame:
    """(item, popularity, vector, categories), the last three where they are there; a category once an item."""
    names = [name for name in ("popularity", "vector") if name in items.columns]
    if "categories" not in items.columns:
        return _encoded(items, "item", *names)
    categories = F.array_compact(F.array_distinct("categories")).alias("categories")
    return items.select(encoded_ids(items, "item"), *names, categories)


def _encoded(frame: DataFrame, *names: str) -> DataFrame:
    """Some columns, those of ids as `encoded_ids` has them."""
    ids = [name for name in names if name in ("user", "item")]
    if all(isinstance(frame.schema[name].dataType, IntegralType) for name in ids):
        return narrowed(frame, *names)
    return frame.select(*(encoded_ids(frame, name) if name in ids else name for name in names))


def _vectors(table: pa.Table) -> F32:
    column = table["vector"].combine_chunks()
    lists = read_lists(column, np.float32)
    widths = np.unique(lists.lengths)
    if column.null_count or len(widths) != 1:
        raise EvaluateError(
            f"items: found vectors of {', '.join(map(str, widths.tolist()))} numbers and {column.null_count} nulls, "
            "expected one of the same length of each item"
        )
    return np.asarray(lists.values.reshape(len(lists.start) - 1, -1), np.float32)
