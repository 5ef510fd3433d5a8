"""Lists to rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Unlist:
    """The task that makes a row of each value of lists, with the columns of the row that has the list beside it. A row
    without a list has none."""

    lists: dict[str, tuple[str, pa.DataType]]
    """Columns of lists that are of one length in a row: the name and type that their values get."""
    others: dict[str, pa.DataType]
    """Columns that are repeated, and their types."""

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([*self.others.items(), *self.lists.values()])

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            lists = [batch.column(name) for name in self.lists]
            row = pc.list_parent_indices(lists[0])
            columns = [batch.column(name).take(row) for name in self.others]
            yield pa.RecordBatch.from_arrays([*columns, *(each.flatten() for each in lists)], schema=self.schema)
