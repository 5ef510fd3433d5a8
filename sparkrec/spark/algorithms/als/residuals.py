"""Mean and biases: taken off ratings before these are factorised, given back to the factors afterwards.

The row of a user is (x, b_u, 1) then and that of an item (y, 1, mean + b_i): their product is mean + b_u + b_i + x.y
(Koren, Bell and Volinsky 2009).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sparkrec.kernels.arrays import F64
from sparkrec.spark.algorithms.als.block import FACTORS
from sparkrec.spark.arrow.packed_rows import schema_of
from sparkrec.spark.model.rows import list_column, matrix
from sparkrec.spark.runner import Rows

_BIASES = ("user_bias", "item_bias")
_WITH_BIAS = FACTORS.append(pa.field("bias", pa.float64()))
_OWN_BIAS = schema_of(user=pa.int64(), bias=pa.float64())


@dataclass(frozen=True)
class Residuals:
    """Ratings (value, user_bias, item_bias, others) without the biases, `value` what these and the mean leave of it.

    schema  of the columns that stay
    """

    schema: pa.Schema
    mean: float

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            value = batch.column("value").to_numpy(zero_copy_only=False) - self.mean
            for name in _BIASES:
                value = value - batch.column(name).to_numpy()
            columns = {name: batch.column(name) for name in self.schema.names}
            columns["value"] = pa.array(value.astype(np.float32))
            yield pa.RecordBatch.from_arrays([*columns.values()], schema=self.schema)


def residuals(ratings: Rows, mean: float, users: Rows, items: Rows) -> Rows:
    """Ratings (user, item, value, others) whose value is what the mean and biases (user, bias), (item, bias) leave of
    it; those of users or items without a bias are left out."""
    columns = ratings.fields()
    of_each = ratings.joined(users.select("user", user_bias="bias"), "user").joined(
        items.select("item", item_bias="bias"), "item"
    )
    return of_each.map_rows(Residuals(columns, mean))


@dataclass(frozen=True)
class WithBias:
    """Rows (id, value, bias) of factors, the bias and a one behind these.

    level      added to the bias
    own_first  whether the bias stands before the one, as in rows of users
    """

    level: float
    own_first: bool
    schema: pa.Schema = FACTORS

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            own = batch.column("bias").to_numpy() + self.level
            tail = (own, np.ones(len(own))) if self.own_first else (np.ones(len(own)), own)
            rows = np.column_stack([matrix(batch.column("value")), *(each.astype(np.float32) for each in tail)])
            yield pa.RecordBatch.from_arrays([batch.column("id"), list_column(rows)], schema=FACTORS)


def with_bias(factors: Rows, biases: Rows, key: str, level: float, own_first: bool) -> Rows:
    """Factors (id, value) and biases (key, bias) of the same ids, as `WithBias` has them."""
    return factors.joined(biases.select("bias", id=key), "id").map_rows(WithBias(level, own_first))


@dataclass(frozen=True)
class WithoutBias:
    """Rows (id, value) of factors, as `bias` what stands at one of their last two places, and what is before these.

    at  place of the bias, from the end
    """

    rank: int
    at: int
    schema: pa.Schema = _WITH_BIAS

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = matrix(batch.column("value"))
            bias = rows[:, -self.at].astype(np.float64) if rows.size else np.zeros(0)
            vectors = list_column(np.ascontiguousarray(rows[:, : self.rank]))
            yield pa.RecordBatch.from_arrays([batch.column("id"), vectors, pa.array(bias)], schema=self.schema)


@dataclass(frozen=True)
class OwnBias:
    """(user, bias) of ratings (user, value, bias) in order of users, `bias` that of the item: the mean of what level
    and items leave of each rating, as if there were so many more of which they leave nothing."""

    level: float
    regularization: float
    schema: pa.Schema = _OWN_BIAS

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rated = [*batches]
        if not rated:
            return
        ratings = pa.Table.from_batches(rated)
        value: F64 = ratings["value"].to_numpy() - self.level - ratings["bias"].to_numpy()
        users, at = np.unique(ratings["user"].to_numpy(), return_inverse=True)
        left: NDArray[np.float64] = np.bincount(at, value) / (np.bincount(at) + self.regularization)
        yield pa.RecordBatch.from_arrays([pa.array(users), pa.array(left)], schema=self.schema)
