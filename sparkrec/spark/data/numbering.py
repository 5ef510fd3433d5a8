"""The tasks that number ids: in buckets of a hash, in order within each. See `ids`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkrec.kernels.arrays import I64
from sparkrec.spark.arrow.packed_rows import schema_of


@dataclass(frozen=True)
class DistinctIds:
    """(bucket, id) of rows (bucket, id), each once a batch: fewer to move."""

    kind: pa.DataType
    """Of the ids."""

    @property
    def schema(self) -> pa.Schema:
        return schema_of(bucket=pa.int64(), id=self.kind)

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            ids = batch.column(1).unique()
            bucket = batch.column(0).take(pc.index_in(ids, batch.column(1)))
            yield pa.RecordBatch.from_arrays([bucket.cast(pa.int64()), ids], schema=self.schema)


@dataclass(frozen=True)
class PlaceIds:
    """(bucket, place, id): the ids of a bucket, each once, ascending, numbered from 0."""

    kind: pa.DataType

    @property
    def schema(self) -> pa.Schema:
        return schema_of(bucket=pa.int64(), place=pa.int64(), id=self.kind)

    def __call__(self, group: pa.Table) -> pa.Table:
        ids = group["id"].combine_chunks().unique().sort()
        bucket = np.full(len(ids), group["bucket"][0].as_py())
        return pa.Table.from_arrays([pa.array(bucket), pa.array(np.arange(len(ids))), ids], schema=self.schema)


@dataclass(frozen=True)
class NumberIds:
    """(number, id): places in a bucket, counted from where the bucket starts.

    start  (buckets,)
    """

    kind: pa.DataType
    start: I64

    @property
    def schema(self) -> pa.Schema:
        return schema_of(number=pa.int64(), id=self.kind)

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            number = self.start[batch.column("bucket").to_numpy()] + batch.column("place").to_numpy()
            yield pa.RecordBatch.from_arrays([pa.array(number), batch.column("id")], schema=self.schema)
