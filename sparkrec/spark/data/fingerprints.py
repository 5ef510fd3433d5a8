"""What rows are known by, whatever their order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sparkrec.kernels.random import GOLDEN, mix64
from sparkrec.spark.arrow.packed_rows import schema_of
from sparkrec.spark.data.sequences import micros
from sparkrec.spark.runner import Rows

_SUMS = schema_of(rows=pa.int64(), first=pa.int64(), second=pa.int64())
_NULL = np.uint64(0x6E756C6C)


def fingerprint(rows: Rows) -> str:
    """Of rows in any order: their number, and two sums of 64 bits over hashes of them. (Equal rows would cancel out
    under xor, and one sum of 64 bits is easily made to collide.)"""
    parts = rows.map_rows(SumHashes()).table().to_pydict()
    return "/".join(f"{sum(parts[name]) % 2**64:x}" for name in _SUMS.names)


@dataclass(frozen=True)
class SumHashes:
    """The number of rows, and sums of two hashes of each, modulo 2^64. Types of columns do not count, places do."""

    schema: pa.Schema = _SUMS

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
                first = np.zeros(batch.num_rows, np.uint64)
                for column in batch.columns:
                    first = mix64(first * GOLDEN + _bits(column))
                sums = first.sum(dtype=np.uint64), mix64(first + GOLDEN).sum(dtype=np.uint64)
            told = [batch.num_rows, *(int(each.view(np.int64)) for each in sums)]
            yield pa.RecordBatch.from_arrays([pa.array([each], pa.int64()) for each in told], schema=_SUMS)


def _bits(column: pa.Array) -> NDArray[np.uint64]:
    """64 bits of each value."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = micros(column)
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        coded = column.dictionary_encode(null_encoding="encode")
        texts = (repr(each).encode() for each in coded.dictionary.to_pylist())
        digests = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts)
        return np.asarray(np.frombuffer(digests, np.uint64)[coded.indices.to_numpy()])
    missing = column.is_null().to_numpy(zero_copy_only=False)
    values = column.fill_null(0).to_numpy()
    wide = values.astype(np.float64 if values.dtype.kind == "f" else np.int64).view(np.uint64)
    return np.asarray(np.where(missing, _NULL, mix64(wide)))
