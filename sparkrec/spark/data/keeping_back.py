"""Rows that a fit keeps back to know when it has learned enough."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkrec.kernels.hashing import spark_hash
from sparkrec.spark.data.sequences import micros
from sparkrec.spark.runner import Rows

_USERS = 10_000
"""Users of whom a row is kept back, about."""
_OF_USER, _OF_ITEM = 5, 2
"""Rows that they and its item have at least."""
_LAST = np.iinfo(np.int64).max
_ORDER = ("order", "draw")
TRAIN, KEPT_BACK = "train", "kept back"


def keep_back(rows: Rows) -> tuple[Rows, Rows]:
    """Rows (user, item, timestamp, others) to train on, and those that are kept back: the last row of each user with
    five or more, whose item somebody else has, too; where there are very many such users, of those whom a hash draws.
    Of rows of one time a hash tells the last."""
    columns = rows.fields()
    of_user, of_item = rows.counted("user").kept(), rows.counted("item")
    every = max(1, of_user.count() // _USERS)
    counted = rows.joined(of_user.select("user", n_user="n"), "user").joined(of_item.select("item", n_item="n"), "item")
    marked = counted.map_rows(OrderLatestFirst(columns)).map_sorted(
        ["user"], MarkLast(columns, every), [*_ORDER, "item"]
    )
    marked = marked.kept()
    marked.count()
    of_user.release()
    train, kept = (marked.where_is("part", part).select(*rows.columns) for part in (TRAIN, KEPT_BACK))
    return train, kept


@dataclass(frozen=True)
class OrderLatestFirst:
    """Rows (user, item, timestamp, others, n_user, n_item) with numbers by which the latest of a user comes first:
    `order` is the less the later, `draw` a hash of user and item.

    columns  those that stay, beside the counts
    """

    columns: pa.Schema

    @property
    def schema(self) -> pa.Schema:
        numbers = [(name, pa.int64()) for name in ("n_user", "n_item", *_ORDER)]
        return pa.schema([*self.columns, *numbers])

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            order = pc.negate(micros(batch.column("timestamp"))).fill_null(_LAST)
            draw = spark_hash(batch.column("user").to_numpy(), batch.column("item").to_numpy())
            kept = [batch.column(name) for name in (*self.columns.names, "n_user", "n_item")]
            yield pa.RecordBatch.from_arrays([*kept, order, pa.array(draw)], schema=self.schema)


@dataclass(frozen=True)
class MarkLast:
    """Rows, of a user in the order of `OrderLatestFirst`, with the part that each is for.

    every  a hash draws one of so many users
    """

    columns: pa.Schema
    every: int

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([*self.columns, ("part", pa.string())])

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        before = None
        for batch in batches:
            if not len(batch):
                continue
            user = batch.column("user").to_numpy()
            last = np.append(before is None or user[0] != before, user[1:] != user[:-1])
            for name, least in (("n_user", _OF_USER), ("n_item", _OF_ITEM)):
                last &= batch.column(name).to_numpy() >= least
            last &= spark_hash(user) % self.every == 0
            part = pc.if_else(pa.array(last), KEPT_BACK, TRAIN)
            yield pa.RecordBatch.from_arrays(
                [*(batch.column(name) for name in self.columns.names), part], schema=self.schema
            )
            before = user[-1]
