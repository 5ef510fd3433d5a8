"""The tasks that number ids: in buckets of a hash, in order within each. See `ids`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sparkrec.kernels.arrays import I64
from sparkrec.kernels.hashing import spark_hash, spark_hash_of_texts
from sparkrec.spark.arrow.packed_rows import schema_of

BUCKETS = 512
"""Part of what an id is: another number gives other ids."""


@dataclass(frozen=True)
class DistinctIds:
    """(bucket, id) of rows (id), each once a batch: fewer to move."""

    kind: pa.DataType
    """Of the ids."""

    @property
    def schema(self) -> pa.Schema:
        return schema_of(bucket=pa.int64(), id=self.kind)

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            ids = batch.column("id").unique()
            yield pa.RecordBatch.from_arrays([pa.array(_bucket_of(ids)), ids], schema=self.schema)


def _bucket_of(ids: pa.Array) -> I64:
    """The bucket in which each id is numbered: Spark's xxhash64 of integers, times, texts, and the text of others."""
    if pa.types.is_date32(ids.type):
        ids = ids.cast(pa.int32())
    if pa.types.is_integer(ids.type) or pa.types.is_temporal(ids.type):
        hashed = spark_hash(ids.cast(pa.int64()).to_numpy())
    else:
        of_bytes = pa.types.is_binary(ids.type) or pa.types.is_large_binary(ids.type)
        start, data = _bytes_of(ids.cast(pa.large_binary() if of_bytes else pa.large_string()))
        hashed = spark_hash_of_texts(start, data)
    return np.asarray(np.mod(hashed, BUCKETS))


def _bytes_of(texts: pa.Array) -> tuple[I64, np.ndarray]:
    """Where each of some large texts begins, the last ends (n + 1,), and their bytes (uint8)."""
    _, start, data = texts.buffers()
    if not len(texts) or data is None:
        return np.zeros(len(texts) + 1, np.int64), np.zeros(0, np.uint8)
    starts = np.frombuffer(start, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return starts, np.frombuffer(data, np.uint8)


@dataclass(frozen=True)
class PlaceIds:
    """(bucket, place, id) of rows (bucket, id) in this order, a bucket whole: each id once, numbered from 0 in its
    bucket."""

    kind: pa.DataType

    @property
    def schema(self) -> pa.Schema:
        return schema_of(bucket=pa.int64(), place=pa.int64(), id=self.kind)

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        last, place = None, 0  # the last row, and the number of its id
        for batch in batches:
            if not batch.num_rows:
                continue
            rows = pa.Table.from_batches([batch] if last is None else [last, batch]).combine_chunks()
            bucket = rows["bucket"].to_numpy()
            id_code = rows["id"].combine_chunks().dictionary_encode().indices.to_numpy()
            begins = np.append(True, bucket[1:] != bucket[:-1])
            is_new = begins | np.append(True, id_code[1:] != id_code[:-1])
            number = np.cumsum(is_new) - 1
            number -= np.maximum.accumulate(np.where(begins, number, 0))
            if last is not None:
                number[bucket == bucket[0]] += place
                is_new[0] = False
            last, place = batch.slice(batch.num_rows - 1), int(number[-1])
            new = np.flatnonzero(is_new)
            ids = rows["id"].take(pa.array(new)).combine_chunks()
            yield pa.RecordBatch.from_arrays([pa.array(bucket[new]), pa.array(number[new]), ids], schema=self.schema)


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
