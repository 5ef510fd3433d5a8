"""Why a model of features scores as it does: parts of a score, and what each field is worth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.errors import InputError
from sparkrec.kernels.arrays import F32
from sparkrec.kernels.metrics.clicks import auc
from sparkrec.spark.arrow.packed_rows import schema_of
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.model.field_queries import field_scorer, places, tables_of, timed
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import as_vector
from sparkrec.spark.platform.before_spark_4 import to_arrow
from sparkrec.spark.runner import RowFunction, map_rows

CONTRIBUTIONS = "item long, contribution double"
"""What a score is the sum of: items of the user, and null for biases."""
_PARTS = schema_of(
    user=pa.int64(), item=pa.int64(), field=pa.string(), with_field=pa.string(), contribution=pa.float32()
)


def contributions(model: Model, dataset: Dataset, events: DataFrame) -> DataFrame:
    """(user, item, field, with_field, contribution): the parts of the score of each event, whose sum it is. Fields by
    themselves have no `with_field`; one is called constant. For lr and fm; InputError for others.

    events  user long, item long, timestamp, rows, weights
    """
    scorer = _scorer_of_fields(model)
    none = (np.zeros((0, _width(scorer, side)), np.float32) for side in ("query", "item"))
    scorer.contributions(*none)  # refuses others
    where = places(model, dataset)

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        tables = tables_of(*where)
        for batch in batches:
            terms, parts = scorer.contributions(*tables.rows(scorer, batch))
            n, many = parts.shape
            yield pa.RecordBatch.from_pydict(
                {
                    "user": np.repeat(batch.column("user").to_numpy(), many),
                    "item": np.repeat(batch.column("item").to_numpy(), many),
                    "field": pa.array([field for field, _ in terms] * n, pa.string()),
                    "with_field": pa.array([other for _, other in terms] * n, pa.string()),
                    "contribution": parts.ravel(),
                }
            )

    return map_rows(timed(events), RowFunction(_PARTS, work))


def contributions_of_items(model: Model, user: int, item: int, items: Sequence[int]) -> DataFrame:
    """CONTRIBUTIONS of a model whose rows of users are sparse: each entry times that of the item.

    items  of each position of a row
    """
    own = model.users.where(F.col("user") == user).collect()[0]
    target = as_vector(model.items.where(F.col("item") == item).collect()[0], model.size)
    parts = [
        (items[place], float(weight * target[place])) for place, weight in zip(own["index"], own["value"], strict=True)
    ]
    return model.users.sparkSession.createDataFrame(parts, CONTRIBUTIONS)


def importance(
    model: Model, dataset: Dataset, rows: DataFrame, *, most: int = 50_000, seed: int = 0
) -> dict[str, float]:
    """By field, how much lower the AUC of clicks is when its values are shuffled among the rows (Breiman 2001, section
    10): of at most `most` rows, drawn by `seed`.

    rows  of a split, with the columns that `score_events` needs; those whose value is above 0 are clicks

    Raises InputError where there are only clicks, or none.
    """
    scorer = _scorer_of_fields(model)
    known = rows.join(dataset.items.select("item"), "item", "left_semi")
    drawn = to_arrow(timed(known).orderBy(F.xxhash64(F.lit(seed), "user", "item", "timestamp")).limit(most))
    clicked = drawn["value"].to_numpy() > 0
    if clicked.all() or not clicked.any():
        raise InputError(f"importance: found {clicked.sum():,} clicks among {len(clicked):,} rows, expected both kinds")
    tables = tables_of(*places(model, dataset))
    sides = dict(zip(("query", "item"), tables.rows(scorer, drawn.combine_chunks().to_batches()[0]), strict=True))
    whole = auc(scorer.score_rows(**_given(sides)), clicked)
    order = np.random.default_rng(seed).permutation(len(clicked))
    found = {}
    for field in scorer.layout.names:
        side, columns = scorer.columns(field)
        shuffled = sides[side].copy()
        shuffled[:, columns] = sides[side][order][:, columns]
        found[field] = whole - auc(scorer.score_rows(**_given({**sides, side: shuffled})), clicked)
    return dict(sorted(found.items(), key=lambda each: -each[1]))


def _given(sides: dict[str, F32]) -> dict[str, F32]:
    return {"queries": sides["query"], "items": sides["item"]}


def _scorer_of_fields(model: Model) -> Any:
    scorer = field_scorer(model)
    if scorer is None:
        raise InputError("expected a model of features (lr, fm, ...), found one that sees none")
    return scorer


def _width(scorer: Any, side: str) -> int:
    return 1 + int(max(max(columns) for at, columns in map(scorer.columns, scorer.layout.names) if at == side))
