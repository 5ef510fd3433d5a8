"""Putting ratings into blocks: what the tasks of `layout` do. Arrow in, Arrow out, no Spark."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sparkrec.kernels.als.blocking import REGISTERS, hashed, numbered, positions, tally
from sparkrec.kernels.arrays import F64, I64
from sparkrec.kernels.csr import by_key, grouped
from sparkrec.spark.algorithms.als.plan import BUCKETS, SPLIT, SidePlan
from sparkrec.spark.arrow.blocks import binary
from sparkrec.spark.arrow.packed_rows import (
    Batches,
    each_row,
    floats,
    integers,
    joined,
    one_row,
    only_row,
    rows_with,
    schema_of,
)

CHUNK_ROWS = 1 << 20
"""Ratings in a chunk, 24 MB."""

_LINKS = pa.list_(pa.struct([("block", pa.int64()), ("positions", pa.binary())]))
_NEEDED = pa.list_(pa.struct([("block", pa.int64()), ("ids", pa.binary())]))
TALLIES = {f"{side}_{what}": pa.binary() for side in ("user", "item") for what in ("counts", "registers")}

CHUNK = schema_of(
    n=pa.int64(),
    user=pa.binary(),
    item=pa.binary(),
    value=pa.binary(),
    confidence=pa.binary(),
    **TALLIES,
    unusable=pa.int64(),
    example=pa.string(),
)
"""n ratings as they come, packed as `arrow_rows.integers` and `floats` do, here and below. Last in each partition, a
row with the tallies of its ids (int64 and int32 arrays, as of `blocking.tally`), how many of its rows cannot be used,
and one of them."""

PIECE = schema_of(
    block=pa.int64(), n=pa.int64(), dst=pa.binary(), src=pa.binary(), value=pa.binary(), confidence=pa.binary()
)
"""The ratings of a chunk that belong to a block."""

IN_BLOCK = schema_of(
    block=pa.int64(),
    indptr=pa.binary(),
    indices=pa.binary(),
    value=pa.binary(),
    confidence=pa.binary(),
    ids=pa.binary(),
    split=pa.binary(),
    needed=_NEEDED,
)
"""An in-block of `layout`."""

POPULAR = schema_of(bucket=pa.int64(), id=pa.int64(), count=pa.int64())
WANTED = schema_of(block=pa.int64(), to=pa.int64(), wanted=pa.binary())
"""Ids of a block that another one needs."""
OUTLINE = schema_of(block=pa.int64(), n=pa.int64(), ids=pa.binary(), split=pa.binary(), needed=_NEEDED, links=_LINKS)
"""An in-block of n ids without its ratings, and its out-links."""


@dataclass(frozen=True)
class Preference:
    """Implicit feedback from ratings r: target 1 if r > 0, else 0; confidence 1 + alpha |r| (Hu et al. 2008)."""

    alpha: float

    def of(self, r: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Targets and confidences, of the type of r."""
        return (r > 0).astype(r.dtype), (1 + self.alpha * np.abs(r)).astype(r.dtype)


@dataclass(frozen=True)
class Propensity:
    """Confidence of the ratings of an item that has n of them, divided by n^exponent and by `mean`."""

    exponent: float
    mean: float
    """Of n^-exponent over all ratings."""

    @classmethod
    def over(cls, exponent: float, n: Sequence[int], items: Sequence[int]) -> Propensity:
        """n: numbers of ratings; items: how many items have as many."""
        ratings = [each * times for each, times in zip(n, items, strict=True)]
        total = math.fsum(each * most**-exponent for each, most in zip(ratings, n, strict=True))
        return cls(exponent, total / sum(ratings))

    def weights(self, n: NDArray[Any]) -> F64:
        """Of ratings of items with n of them."""
        weights: F64 = n.astype(np.float64) ** -self.exponent / self.mean
        return weights


def chunker(
    preference: Preference | None, propensity: Propensity | None = None
) -> Callable[[Iterable[pa.RecordBatch]], Batches]:
    """CHUNK rows of batches (user, item integers, value float, confidence float; n integer, ratings of the item).

    Without a `confidence` it is 1, or what `preference` makes of the value. `propensity` weighs it by n.
    """

    def chunks(batches: Iterable[pa.RecordBatch]) -> Batches:
        counts = {side: np.zeros(BUCKETS, np.int64) for side in ("user", "item")}
        registers = {side: np.zeros(REGISTERS, np.int32) for side in ("user", "item")}
        unusable, example, empty = 0, None, True
        for table in joined(batches, CHUNK_ROWS):
            empty = False
            bad = _unusable(table)
            if bad.any():
                unusable += int(bad.sum())
                first = table.slice(int(bad.argmax()), 1).to_pylist()[0]
                example = ", ".join(_said(name, value) for name, value in first.items())
                continue
            columns = {name: table.column(name).to_numpy() for name in table.column_names}
            for side in counts:
                in_buckets, seen = tally(hashed(columns[side]), BUCKETS)
                counts[side] += in_buckets
                np.maximum(registers[side], seen, out=registers[side])
            if preference is not None:
                columns["value"], implied = preference.of(columns["value"])
                columns.setdefault("confidence", implied)
            if propensity is not None:
                own = columns.get("confidence", np.ones(1))
                columns["confidence"] = (own * propensity.weights(columns.pop("n"))).astype(np.float32)
            yield one_row(CHUNK, n=pa.array([len(table)]), **_packed(columns))
        if not empty:
            tallies = {f"{side}_counts": binary(counts[side]) for side in counts}
            tallies |= {f"{side}_registers": binary(registers[side]) for side in registers}
            yield one_row(CHUNK, **tallies, unusable=pa.array([unusable]), example=pa.array([example], pa.string()))

    return chunks


def _said(name: str, value: float | None) -> str:
    """A cell, as `naming.named` takes it."""
    return f"{name} {'number ' * (name in ('user', 'item') and value is not None)}{value}"


def _packed(columns: dict[str, NDArray[Any]]) -> dict[str, pa.Array]:
    """Arrays as binary columns."""
    return {
        name: (integers if np.issubdtype(values.dtype, np.integer) else floats)(values)
        for name, values in columns.items()
    }


def _unusable(ratings: pa.Table) -> NDArray[np.bool_]:
    """Rows with a null, a number that is not finite, or a negative confidence."""
    bad = np.zeros(len(ratings), bool)
    for name in ratings.column_names:
        column = ratings.column(name)
        if column.null_count:
            bad |= column.is_null().to_numpy()
        if pa.types.is_floating(column.type):
            values = column.to_numpy()
            bad |= ~np.isfinite(values)
            if name == "confidence":
                bad |= values < 0
    return bad


def popular(side: str, buckets: I64) -> Callable[[Iterable[pa.RecordBatch]], Batches]:
    """POPULAR: the ids of CHUNK rows that are in `buckets`."""
    wanted = np.zeros(BUCKETS, bool)
    wanted[buckets] = True

    def count(batches: Iterable[pa.RecordBatch]) -> Batches:
        for row in each_row(batches):
            ids = row.integers(side, row.n)
            distinct, counts = np.unique(ids[wanted[hashed(ids) % BUCKETS]], return_counts=True)
            columns = {"bucket": hashed(distinct) % BUCKETS, "id": distinct.astype(np.int64), "count": counts}
            yield pa.RecordBatch.from_pydict(columns, POPULAR)

    return count


def most_popular(least: float) -> Callable[[pa.Table], pa.Table]:
    """POPULAR: of a bucket, all ratings of the ids that have more than `least` together."""

    def add_up(table: pa.Table) -> pa.Table:
        ids, at = np.unique(table["id"].to_numpy(), return_inverse=True)
        counts = np.zeros(len(ids), np.int64)
        np.add.at(counts, at, table["count"].to_numpy())
        enough = counts > least
        bucket = np.full(int(enough.sum()), table["bucket"][0].as_py())
        return pa.Table.from_pydict({"bucket": bucket, "id": ids[enough], "count": counts[enough]}, POPULAR)

    return add_up


def pieces(plan: SidePlan, dst: str, src: str) -> Callable[[Iterable[pa.RecordBatch]], Batches]:
    """PIECE rows of CHUNK rows, for the blocks of side `dst`."""

    def cut(batches: Iterable[pa.RecordBatch]) -> Batches:
        for row in each_row(batches):
            columns = {"dst": row.integers(dst, row.n), "src": row.integers(src, row.n)}
            columns |= {name: row.floats(name, row.n) for name in ("value", "confidence") if row.has(name)}
            block = plan.blocks_of_ratings(columns["dst"], columns["src"])
            start, order = by_key(block, len(plan.keys))
            columns = {name: values[order] for name, values in columns.items()}
            for key, first, stop in zip(plan.keys.tolist(), start[:-1].tolist(), start[1:].tolist(), strict=True):
                if first < stop:
                    part = _packed({name: values[first:stop] for name, values in columns.items()})
                    yield one_row(PIECE, block=pa.array([key]), n=pa.array([stop - first]), **part)

    return cut


def assemble(dst_plan: SidePlan, src_plan: SidePlan) -> Callable[[pa.Table], pa.Table]:
    """The IN_BLOCK row of all PIECE rows of a block."""

    def put_together(table: pa.Table) -> pa.Table:
        parts = [*each_row(table.to_batches())]
        dst, src = (np.concatenate([part.integers(name, part.n) for part in parts]) for name in ("dst", "src"))
        is_split = dst_plan.split_at(dst) >= 0
        if is_split.any():
            own, own_rows = numbered(dst[~is_split])
            split, split_rows = numbered(dst[is_split])
            rows = np.empty(len(dst), np.int32)
            rows[~is_split], rows[is_split] = own_rows, split_rows + len(own)
        else:
            (own, rows), split = numbered(dst), np.zeros(0, np.int64)
        src_ids, columns = numbered(src)
        homes = src_plan.homes(src_ids)
        by_home = np.argsort(homes, kind="stable")  # block after block, ascending within
        place = np.empty(len(by_home), np.int32)
        place[by_home] = np.arange(len(by_home), dtype=np.int32)
        columns = place[columns]
        indptr, order = grouped(rows, columns, len(own) + len(split))
        needed = [
            {"block": int(home), "ids": src_ids[by_home[homes[by_home] == home]].tobytes()} for home in np.unique(homes)
        ]
        out = {
            "block": table.column("block").slice(0, 1).combine_chunks(),
            "indptr": binary(indptr),
            "indices": integers(columns[order]),
            "ids": binary(own),
            "split": binary(split),
            "needed": pa.array([needed], _NEEDED),
        }
        for name in ("value", "confidence"):
            if any(part.has(name) for part in parts):
                values = np.concatenate([part.floats(name, part.n) for part in parts])
                out[name] = floats(values[order])
        return pa.Table.from_batches([one_row(IN_BLOCK, **out)])

    return put_together


def wanted(batches: Iterable[pa.RecordBatch]) -> Batches:
    """WANTED rows of what IN_BLOCK rows need of other blocks; what the driver sends is nobody's."""
    for row in each_row(batches):
        for need in row.batch["needed"][0].as_py():
            if need["block"] != SPLIT:
                columns = {"block": [need["block"]], "to": [row.key("block")], "wanted": [need["ids"]]}
                yield pa.RecordBatch.from_pydict(columns, WANTED)


def link(table: pa.Table) -> pa.Table:
    """The OUTLINE of a block from its own row, and rows (to, wanted) of what other blocks need of it."""
    own = only_row(table, "ids")
    ids = own.array("ids", np.int64)
    links = []
    for row in sorted(rows_with(table, "wanted"), key=lambda row: row.key("to")):
        at = positions(row.array("wanted", np.int64), ids).astype(np.int32)
        links.append({"block": row.key("to"), "positions": at.tobytes()})
    columns = {name: own.batch.column(name) for name in ("block", "ids", "split", "needed")}
    columns |= {"n": pa.array([len(ids)]), "links": pa.array([links], _LINKS)}
    return pa.Table.from_batches([one_row(OUTLINE, **columns)])
