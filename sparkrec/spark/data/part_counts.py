"""How many rows users and items have in each part of a dataset, and what a manifest tells of that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkrec.kernels.arrays import I64
from sparkrec.spark.arrow.packed_rows import schema_of
from sparkrec.spark.data.splits import PARTS
from sparkrec.spark.runner import Rows

QUANTILES = {"min": 0.0, "5%": 0.05, "25%": 0.25, "50%": 0.5, "75%": 0.75, "95%": 0.95, "max": 1.0}
_TALLY = schema_of(
    all=pa.int64(), present=pa.list_(pa.int64()), rows=pa.list_(pa.int64()), sums=pa.list_(pa.int64()),
    ids=pa.list_(pa.int64()),
)  # fmt: skip


def rows_by_part(rows: Rows, side: str) -> Rows:
    """(side, train_count, validation_count, test_count) of rows (side, part), in order; other parts count nowhere."""
    return rows.counted(side, "part").map_sorted([side], CountParts(side))


@dataclass(frozen=True)
class CountParts:
    """A row for each id, of rows (id, part, n) in the order of ids."""

    side: str

    @property
    def schema(self) -> pa.Schema:
        return schema_of(**{self.side: pa.int64()}, **{f"{part}_count": pa.int64() for part in PARTS})

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        ids, counts = np.zeros(0, np.int64), np.zeros((0, len(PARTS)), np.int64)
        for batch in batches:
            own = batch.column(self.side).to_numpy()
            part = batch.column("part")
            found = np.zeros((len(own), len(PARTS)), np.int64)
            for at, name in enumerate(PARTS):
                there = pc.equal(part, name).to_numpy(zero_copy_only=False)
                found[there, at] = batch.column("n").to_numpy()[there]
            ids, counts = np.concatenate((ids, own)), np.concatenate((counts, found))
            if not len(ids):
                continue
            first = np.flatnonzero(np.append(True, ids[1:] != ids[:-1]))
            ids, counts = ids[first], np.add.reduceat(counts, first)
            yield self._batch(ids[:-1], counts[:-1])  # the last one may go on
            ids, counts = ids[-1:], counts[-1:]
        yield self._batch(ids, counts)

    def _batch(self, ids: I64, counts: I64) -> pa.RecordBatch:
        columns = [pa.array(ids), *(pa.array(np.ascontiguousarray(each)) for each in counts.T)]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


@dataclass(frozen=True)
class Tally:
    """Of rows as `rows_by_part` has them: how many, how many are in each part, the rows of each, and how many have how
    many rows in all."""

    schema: pa.Schema = _TALLY

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            counts = np.stack([batch.column(f"{part}_count").to_numpy() for part in PARTS], axis=1)
            sums, ids = np.unique(counts.sum(axis=1), return_counts=True)
            told = [len(counts), (counts > 0).sum(axis=0), counts.sum(axis=0), sums, ids]
            arrays = [pa.array([each], field.type) for each, field in zip(told, _TALLY, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, schema=_TALLY)


def times(rows: Rows) -> dict[str, list[int]]:
    """When the first and the last of rows (part, timestamp) took place, by part, in microseconds since 1970; of parts
    with rows that say so."""
    found: dict[str, list[int]] = {}
    rows = rows.select("part", "timestamp")
    for end in (rows.least("part"), rows.greatest("part")):
        for part, at in zip(*end.where_present("timestamp").table().columns, strict=True):
            found.setdefault(part.as_py(), []).append(micros(at).as_py())
    return found


def micros(values: Any) -> Any:
    """Timestamps in microseconds since 1970."""
    return values.cast(pa.timestamp("us", values.type.tz)).cast(pa.int64())


def facts(users: Rows, items: Rows) -> dict[str, Any]:
    """What the manifest tells: counts overall and in each part, and how many interactions a user has."""
    (of_users, sums, n_users), (of_items, _, _) = _tallied(users), _tallied(items)
    rows = int(of_users["rows"].sum())
    counts: dict[str, Any] = {"rows": rows, "users": of_users["all"], "items": of_items["all"]}
    counts["density"] = rows / (of_users["all"] * of_items["all"])
    for at, part in enumerate(PARTS):
        told = of_users["rows"], of_users["present"], of_items["present"]
        counts[part] = dict(zip(("rows", "users", "items"), (int(each[at]) for each in told), strict=True))
    quantiles = {name: _quantile(sums, n_users, share) for name, share in QUANTILES.items()}
    return {"counts": counts, "interactions_per_user": quantiles}


def _tallied(rows: Rows) -> tuple[dict[str, Any], I64, I64]:
    parts = rows.map_rows(Tally()).table().to_pylist()
    told = {name: np.sum([part[name] for part in parts], axis=0) for name in ("present", "rows")}
    sums, code = np.unique(np.concatenate([part["sums"] for part in parts]), return_inverse=True)
    ids = np.bincount(code, weights=np.concatenate([part["ids"] for part in parts])).astype(np.int64)
    return {"all": sum(part["all"] for part in parts), **told}, sums, ids


def _quantile(values: I64, times: I64, share: float) -> float:
    """A quantile of values that come so many times: linear between its neighbours, as Spark's percentile."""
    at = share * (int(times.sum()) - 1)
    until, places = np.cumsum(times), np.array([np.floor(at), np.ceil(at)])
    low, high = values[np.searchsorted(until, places, side="right")].tolist()
    return float(low + (high - low) * (at - places[0]))
