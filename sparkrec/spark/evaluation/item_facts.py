"""What metrics need to know of items, on the driver: a few numbers of each."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.errors import EvaluateError
from sparkrec.kernels.arrays import F32, F64
from sparkrec.kernels.metrics.measures import ItemFacts
from sparkrec.kernels.ragged import Ragged
from sparkrec.spark.arrow.blocks import read_lists
from sparkrec.spark.evaluation.bucketing import encoded_ids

_NONE = np.zeros(0, np.int64)
NO_ITEMS = ItemFacts(_NONE, np.zeros(0), _NONE, np.zeros((0, 0), np.float32), (np.zeros(1, np.int64), _NONE))


def item_facts(items: DataFrame | None, before: DataFrame | None) -> ItemFacts:
    """Of (item, popularity, vector, categories), the last three where they are there, and of (user, item) that came
    before; either may be None. Popularity is the share of users before who had an item, at least one of them, so that
    its surprise is finite."""
    if items is None and before is None:
        return NO_ITEMS
    users, counted = 1, None
    if before is not None:
        pairs = before.select(encoded_ids(before, "user"), encoded_ids(before, "item")).distinct()
        users = max(pairs.select("user").distinct().count(), 1)
        counted = pairs.groupBy("item").agg(F.count("*").alias("n"))
    if items is None:
        assert counted is not None
        rows = counted
    else:
        own = [F.col(name) for name in ("popularity", "vector") if name in items.columns]
        if "categories" in items.columns:
            own.append(F.array_compact(F.array_distinct("categories")).alias("categories"))
        rows = items.select(encoded_ids(items, "item"), *own)
        rows = rows.withColumn("n", F.lit(1)) if counted is None else rows.join(counted, "item", "left")
    table = rows.toArrow().sort_by("item").combine_chunks()
    ids = table["item"].to_numpy()
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
