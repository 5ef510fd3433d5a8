"""Rows of users that a trained model makes from all that they have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.config import UserRows
from sparkrec.spark.arrow.blocks import read_lists
from sparkrec.spark.data.ids import ascending
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import dense_batch, dense_schema, dense_vectors
from sparkrec.spark.platform.before_spark_4 import from_arrow
from sparkrec.spark.runner import RowFunction, map_rows


def encode(model: Model, _settings: object, events: DataFrame, _observed: DataFrame) -> DataFrame:
    """Rows of the users in `events` (user, item, value, confidence), items of the model; as examples of training, a
    pair that comes more than once counts with the mean of its values and the sum of its confidences."""
    assert model.encoder is not None
    encoder = model.encoder
    items = ascending(model.items, "item")
    places = pa.table({"item": items, "place": np.arange(len(items))})
    once = events.groupBy("user", "item").agg(
        F.avg("value").cast("float").alias("value"), F.sum("confidence").cast("float").alias("confidence")
    )
    entries = once.join(F.broadcast(from_arrow(events.sparkSession, places)), "item")
    whole = entries.groupBy("user").agg(
        F.sort_array(F.collect_list(F.struct("place", "value", "confidence"))).alias("row")
    )
    columns = whole.select("user", "row.place", "row.value", "row.confidence")

    def rows(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            places = read_lists(batch.column("place"), np.int64)
            values, confidence = (read_lists(batch.column(name), np.float32).values for name in ("value", "confidence"))
            yield dense_batch("user", batch.column("user"), encoder.encode(*places, values, confidence))

    return dense_vectors(map_rows(columns, RowFunction(dense_schema("user"), rows)), "user")


ENCODED = UserRows(encode, "history")
"""Of a trained model of whole rows."""
