"""The tasks that draw items for users to tell the held-out ones from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from sparkrec.kernels.arrays import I64
from sparkrec.kernels.ragged import Ragged
from sparkrec.kernels.sampling import sample_negatives
from sparkrec.spark.arrow.blocks import ArrayColumns, unpack
from sparkrec.spark.arrow.packed_rows import schema_of

KNOWN: ArrayColumns = {"known": np.int64}
"""Of a user: items that are not drawn, ascending."""


@dataclass(frozen=True)
class ListKnown:
    """(user, known) of rows (user, item) in this order, all rows of a user in one call: its items, each once."""

    schema: ClassVar[pa.Schema] = schema_of(user=pa.int64(), known=pa.list_(pa.int64()))

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        user, item = np.zeros(0, np.int64), np.zeros(0, np.int64)  # of whom more may come
        for batch in batches:
            user = np.append(user, batch.column("user").to_numpy())
            item = np.append(item, batch.column("item").to_numpy())
            whole = np.searchsorted(user, user[-1]) if len(user) else 0
            yield self._lists(user[:whole], item[:whole])
            user, item = user[whole:], item[whole:]
        yield self._lists(user, item)

    def _lists(self, user: I64, item: I64) -> pa.RecordBatch:
        begins = np.diff(user, prepend=user[:1] - 1) != 0
        is_new = begins | (np.diff(item, prepend=item[:1]) != 0)
        own = np.add.reduceat(is_new, np.flatnonzero(begins)) if len(user) else np.zeros(0, np.int64)
        known = Ragged.of_lengths(own, item[is_new]).arrow()
        return pa.RecordBatch.from_arrays([pa.array(user[begins]), known], schema=self.schema)


@dataclass(frozen=True)
class SampleCandidates:
    """Draws (user, item) from rows that each hold a block of users, with KNOWN, and the block of all items.

    What is drawn for a user depends on the seed, the user, its known items and all items alone.
    """

    seed: int
    negatives: int
    """Items to draw for each user; fewer, where there are fewer unknown ones."""

    @property
    def schema(self) -> pa.Schema:
        return schema_of(user=pa.int64(), item=pa.int64())

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for row in range(batch.num_rows):
                users = unpack(batch, row, "user", KNOWN)
                items = unpack(batch, row, "item", {}).ids
                drawn = sample_negatives(self.seed, users.ids, users.arrays["known"], items, self.negatives)
                taken = drawn >= 0
                user = np.repeat(users.ids, taken.sum(axis=1))
                yield pa.RecordBatch.from_pydict({"user": user, "item": drawn[taken]})
