"""The task that draws items for users to tell the held-out ones from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sparkrec.kernels.sampling import sample_negatives
from sparkrec.spark.arrow.blocks import ArrayColumns, unpack
from sparkrec.spark.arrow.packed_rows import schema_of

KNOWN: ArrayColumns = {"known": np.int64}
"""Of a user: items that are not drawn, ascending."""


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
