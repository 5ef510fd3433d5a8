"""What one task of ALS does: Arrow in, Arrow out, no Spark. `als_layout` says what the blocks are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sparkrec.kernels import als as kernel
from sparkrec.kernels.arrays import F32, F64, I64
from sparkrec.kernels.blocking import REGISTERS, hashed, numbered, positions, tally
from sparkrec.kernels.csr import Csr, grouped
from sparkrec.kernels.random import normal_rows
from sparkrec.spark.als_plan import BUCKETS, SPLIT, SidePlan
from sparkrec.spark.blocks import binary

Batches = Iterator[pa.RecordBatch]

CHUNK_ROWS = 1 << 20
"""Ratings in a chunk, 24 MB."""


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema(list(columns.items()))


_LINKS = pa.list_(pa.struct([("block", pa.int64()), ("positions", pa.binary())]))
_NEEDED = pa.list_(pa.struct([("block", pa.int64()), ("ids", pa.binary())]))
_TALLIES = {f"{side}_{what}": pa.binary() for side in ("user", "item") for what in ("counts", "registers")}

CHUNK = _schema(
    n=pa.int64(),
    user=pa.binary(),
    item=pa.binary(),
    value=pa.binary(),
    confidence=pa.binary(),
    **_TALLIES,
    unusable=pa.int64(),
    example=pa.string(),
)
"""n ratings as they come: arrays of ids (int32 where they fit, else int64), and of float32, null if all are 1. Last in
each partition, a row with the tallies of its ids (int64 and int32 arrays, as of `blocking.tally`), how many of its rows
cannot be used, and one of them."""

PIECE = _schema(
    block=pa.int64(), n=pa.int64(), dst=pa.binary(), src=pa.binary(), value=pa.binary(), confidence=pa.binary()
)
"""The ratings of a chunk that belong to a block."""

IN_BLOCK = _schema(
    block=pa.int64(),
    indptr=pa.binary(),
    indices=pa.binary(),
    value=pa.binary(),
    confidence=pa.binary(),
    ids=pa.binary(),
    split=pa.binary(),
    needed=_NEEDED,
)
"""An in-block of `als_layout`."""

OUTLINE = _schema(block=pa.int64(), ids=pa.binary(), split=pa.binary(), needed=_NEEDED, links=_LINKS)
"""An in-block without its ratings, and its out-links."""

STATE = _schema(
    block=pa.int64(),
    to=pa.int64(),
    ids=pa.binary(),
    factors=pa.binary(),
    gram=pa.binary(),
    loss=pa.float64(),
    penalty=pa.float64(),
    split=pa.int64(),
    a=pa.binary(),
    b=pa.binary(),
    n=pa.int64(),
    seconds=pa.float64(),
    failure=pa.string(),
)
"""What a solved block gives, rows of three kinds. The block itself (`ids` not null): factors, their gram, its squared
errors, its penalty. A message (`to` not null): factors that another block needs. A piece of the system of a split id
(`split` not null): the sums a, b, n and sum c p^2 as loss. A system without a solution is a row with `failure`: an
exception in a worker would reach its reader as a Java stack trace."""


@dataclass(frozen=True)
class Preference:
    """Implicit feedback from ratings r: target 1 if r > 0, else 0; confidence 1 + alpha |r| (Hu et al. 2008)."""

    alpha: float

    def of(self, r: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Targets and confidences, of the type of r."""
        return (r > 0).astype(r.dtype), (1 + self.alpha * np.abs(r)).astype(r.dtype)


def chunker(preference: Preference | None) -> Callable[[Iterable[pa.RecordBatch]], Batches]:
    """CHUNK rows of batches (user, item integers, value float, confidence float).

    Without a `confidence` it is 1, or what `preference` makes of the value.
    """

    def chunks(batches: Iterable[pa.RecordBatch]) -> Batches:
        counts = {side: np.zeros(BUCKETS, np.int64) for side in ("user", "item")}
        registers = {side: np.zeros(REGISTERS, np.int32) for side in ("user", "item")}
        unusable, example, empty = 0, None, True
        for table in _joined(batches, CHUNK_ROWS):
            empty = False
            bad = _unusable(table)
            if bad.any():
                unusable += int(bad.sum())
                first = table.slice(int(bad.argmax()), 1).to_pylist()[0]
                example = ", ".join(f"{name} {value}" for name, value in first.items())
                continue
            columns = {name: table.column(name).to_numpy() for name in table.column_names}
            for side in counts:
                in_buckets, seen = tally(hashed(columns[side]), BUCKETS)
                counts[side] += in_buckets
                np.maximum(registers[side], seen, out=registers[side])
            if preference is not None:
                columns["value"], implied = preference.of(columns["value"])
                columns.setdefault("confidence", implied)
            yield _row(CHUNK, n=pa.array([len(table)]), **_packed(columns))
        if not empty:
            tallies = {f"{side}_counts": binary(counts[side]) for side in counts}
            tallies |= {f"{side}_registers": binary(registers[side]) for side in registers}
            yield _row(CHUNK, **tallies, unusable=pa.array([unusable]), example=pa.array([example], pa.string()))

    return chunks


def _packed(columns: dict[str, NDArray[Any]]) -> dict[str, pa.Array]:
    """Arrays as binary columns: ids as narrow as they can be, floats left out if all are 1."""
    packed = {}
    for name, values in columns.items():
        if np.issubdtype(values.dtype, np.integer):
            fits = values.dtype.itemsize <= 4 or (values.min() >= -(2**31) and values.max() < 2**31)
            packed[name] = binary(values.astype(np.int32 if fits else np.int64, copy=False))
        elif not (values == 1).all():
            packed[name] = binary(values)
    return packed


def _joined(batches: Iterable[pa.RecordBatch], most: int) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    n = 0
    for batch in batches:
        held.append(batch)
        n += batch.num_rows
        if n >= most:
            yield pa.Table.from_batches(held).combine_chunks()
            held, n = [], 0
    if n:
        yield pa.Table.from_batches(held).combine_chunks()


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
    """(id, count) of the ids of CHUNK rows that are in `buckets`."""
    wanted = np.zeros(BUCKETS, bool)
    wanted[buckets] = True

    def count(batches: Iterable[pa.RecordBatch]) -> Batches:
        for row in _rows(batches):
            ids = row.ids(side)
            distinct, counts = np.unique(ids[wanted[hashed(ids) % BUCKETS]], return_counts=True)
            yield pa.RecordBatch.from_pydict({"id": distinct.astype(np.int64), "count": counts})

    return count


def pieces(plan: SidePlan, dst: str, src: str) -> Callable[[Iterable[pa.RecordBatch]], Batches]:
    """PIECE rows of CHUNK rows, for the blocks of side `dst`."""

    def cut(batches: Iterable[pa.RecordBatch]) -> Batches:
        for row in _rows(batches):
            columns = {"dst": row.ids(dst), "src": row.ids(src)}
            columns |= {name: row.array(name, np.float32) for name in ("value", "confidence") if row.has(name)}
            block = plan.blocks_of_ratings(columns["dst"], columns["src"])
            order = np.argsort(block.astype(np.int16) if len(plan.keys) < 1 << 15 else block, kind="stable")
            ends = np.cumsum(np.bincount(block, minlength=len(plan.keys)))
            columns = {name: values[order] for name, values in columns.items()}
            for key, first, stop in zip(plan.keys.tolist(), (0, *ends[:-1]), ends, strict=True):
                if first < stop:
                    part = _packed({name: values[first:stop] for name, values in columns.items()})
                    yield _row(PIECE, block=pa.array([key]), n=pa.array([stop - first]), **part)

    return cut


def assemble(dst_plan: SidePlan, src_plan: SidePlan) -> Callable[[pa.Table], pa.Table]:
    """The IN_BLOCK row of all PIECE rows of a block."""

    def put_together(table: pa.Table) -> pa.Table:
        parts = [*_rows(table.to_batches())]
        dst, src = (np.concatenate([part.ids(name) for part in parts]) for name in ("dst", "src"))
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
            "indices": binary(columns[order]),
            "ids": binary(own),
            "split": binary(split),
            "needed": pa.array([needed], _NEEDED),
        }
        for name in ("value", "confidence"):
            if any(part.has(name) for part in parts):
                values = np.concatenate([part.floats(name) for part in parts])
                out[name] = binary(values[order])
        return pa.Table.from_batches([_row(IN_BLOCK, **out)])

    return put_together


def link(table: pa.Table) -> pa.Table:
    """The OUTLINE of a block from its own row, and rows (to, wanted) of what other blocks need of it."""
    own = _only(table, "ids")
    ids = own.array("ids", np.int64)
    links = []
    for row in _rows(table.filter(pc.is_valid(table.column("wanted"))).to_batches()):
        at = positions(row.array("wanted", np.int64), ids).astype(np.int32)
        links.append({"block": row.batch["to"][0].as_py(), "positions": at.tobytes()})
    links.sort(key=lambda each: int(each["block"]))
    columns = {name: own.batch.column(name) for name in ("block", "ids", "split", "needed")}
    return pa.Table.from_batches([_row(OUTLINE, **columns, links=pa.array([links], _LINKS))])


@dataclass(frozen=True)
class Outline:
    """Arrays of an OUTLINE, which share its memory."""

    key: int
    ids: I64
    split: I64
    """Ids whose pieces are the rows of ratings after those of `ids`."""
    needed: dict[int, int]
    """src block -> number of rows that come from it."""
    needed_split: I64
    """Ids of those that come from the driver."""
    links: list[tuple[int, NDArray[np.int32]]]
    """dst block of the next half-step -> positions of the rows it needs."""

    @classmethod
    def read(cls, table: pa.Table) -> Outline:
        """Raises RuntimeError unless it is there once."""
        row = _only(table, "links")
        needed = {
            each["block"].as_py(): np.frombuffer(each["ids"].as_buffer(), np.int64) for each in row.batch["needed"][0]
        }
        return cls(
            row.batch["block"][0].as_py(),
            row.array("ids", np.int64),
            row.array("split", np.int64),
            {home: len(ids) for home, ids in needed.items()},
            needed.get(SPLIT, np.zeros(0, np.int64)),
            [
                (each["block"].as_py(), np.frombuffer(each["positions"].as_buffer(), np.int32))
                for each in row.batch["links"][0]
            ],
        )


def _ratings(table: pa.Table) -> tuple[Csr, F32]:
    """The ratings of a block, and their confidence. Raises RuntimeError unless they are there once."""
    row = _only(table, "indptr")
    indptr, indices = row.array("indptr", np.int64), row.array("indices", np.int32)

    def values(name: str) -> F32:
        return row.array(name, np.float32) if row.has(name) else np.ones(len(indices), np.float32)

    return Csr(indptr, indices, values("value")), values("confidence")


@dataclass(frozen=True)
class Penalty:
    """reg of rows with n ratings: scale (n + more)^exponent."""

    scale: float
    more: float
    exponent: float

    def __call__(self, n: NDArray[Any]) -> F64:
        weights: F64 = self.scale * (n + self.more) ** self.exponent
        return weights


@dataclass(frozen=True)
class HalfStep:
    """What all blocks of a half-step are told."""

    rank: int
    unobserved_weight: float
    penalty: Penalty
    solver: kernel.Solver
    gram: F64
    """unobserved_weight times the gram of all src factors."""
    split_ids: I64
    split: F32
    """Factors of the split src ids."""


def solver(step: HalfStep) -> Callable[[pa.Table], pa.Table]:
    """The half-step of one block: its ratings, its outline and the messages to it in; STATE rows out."""

    def solve(table: pa.Table) -> pa.Table:
        block = Outline.read(table)
        ratings, weights = _ratings(table)
        src = _receive(block, table, step)
        started = time.perf_counter()
        n_own = len(block.ids)
        targets, confidence = ratings.rows(0, n_own), weights[: ratings.indptr[n_own]]
        reg = step.penalty(counted_ratings(targets, step.unobserved_weight))
        start = _start(block, table, step.rank) if step.solver.needs_start else None
        weight = step.unobserved_weight
        try:
            dst, loss = kernel.half_step(targets, confidence, src, step.gram, weight, reg, step.solver, start)
        except kernel.SingularSystem as error:
            row = error.row
            n = targets.indptr[row + 1] - targets.indptr[row]
            return pa.Table.from_pylist([{"failure": failure(block.ids[row], n, error)}], STATE)
        penalty = float(reg @ np.einsum("nd,nd->n", dst, dst, dtype=np.float64))
        systems = [*_pieces_of_split(block, ratings, weights, src, weight)]
        seconds = time.perf_counter() - started
        return _send(block, dst, systems, loss=loss, penalty=penalty, seconds=seconds)

    return solve


def counted_ratings(targets: Csr, unobserved_weight: float) -> I64:
    """Ratings of each row as regularization counts them: as MLlib, of implicit feedback only what was preferred."""
    if unobserved_weight == 0 or (targets.values > 0).all():
        return np.diff(targets.indptr)
    return np.diff(np.concatenate(([0], np.cumsum(targets.values > 0)))[targets.indptr])


def failure(key: int, n_ratings: int, error: kernel.SingularSystem) -> str:
    """What to tell about a system without a solution."""
    return (
        f"als: the system of id {key} with {n_ratings} ratings has no finite solution: {error.reason}. "
        "Raise the regularization, or look for absurd ratings."
    )


def starter(d: int, scale: float, seed: int) -> Callable[[pa.Table], pa.Table]:
    """Factors to start from: given ones (start_ids, start) where there are, random ones drawn by id elsewhere."""

    def start(table: pa.Table) -> pa.Table:
        block = Outline.read(table)
        factors = (scale * normal_rows(seed, block.ids, d)).astype(np.float32)
        for row in _rows(table.filter(pc.is_valid(table.column("start_ids"))).to_batches()):
            ids = row.array("start_ids", np.int64)
            known = np.isin(ids, block.ids)
            factors[positions(ids[known], block.ids)] = row.array("start", np.float32).reshape(-1, d)[known]
        return _send(block, factors, [], loss=0.0, penalty=0.0, seconds=0.0)

    return start


def place(plan: SidePlan) -> Callable[[Iterable[pa.RecordBatch]], Batches]:
    """Rows (id, value array<float>) as rows (block, start_ids, start): as `starter` and a warm solver want them."""

    def send(batches: Iterable[pa.RecordBatch]) -> Batches:
        for batch in batches:
            ids = batch.column("id").to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
            values = batch.column("value").flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
            values = values.reshape(len(ids), -1)
            homes = plan.homes(ids)
            for home in np.unique(homes):
                here = homes == home
                yield pa.RecordBatch.from_pydict(
                    {"block": [int(home)], "start_ids": binary(ids[here]), "start": binary(values[here])}
                )

    return send


def grams(batches: Iterable[pa.RecordBatch]) -> Batches:
    """(n, gram) of rows (id, value array<float>)."""
    for batch in batches:
        if batch.num_rows:
            values = batch.column("value").flatten().to_numpy(zero_copy_only=False)
            gram = kernel.gram(values.reshape(batch.num_rows, -1).astype(np.float32, copy=False))
            yield pa.RecordBatch.from_pydict({"n": [batch.num_rows], "gram": binary(gram.ravel())})


def unpack(batches: Iterable[pa.RecordBatch]) -> Batches:
    """Rows (id, value) of blocks (ids, factors)."""
    for row in _rows(batches):
        ids, values = row.array("ids", np.int64), row.array("factors", np.float32)
        if len(ids):
            offsets = np.arange(0, len(values) + 1, len(values) // len(ids), dtype=np.int32)
            yield pa.RecordBatch.from_arrays(
                [pa.array(ids), pa.ListArray.from_arrays(offsets, values)], names=["id", "value"]
            )


@dataclass(frozen=True)
class _Row:
    """One row, whose binary columns are arrays."""

    batch: pa.RecordBatch

    def has(self, name: str) -> bool:
        return bool(self.batch.column(name)[0].is_valid)

    def array(self, name: str, kind: type[np.generic]) -> NDArray[Any]:
        return np.frombuffer(self.batch.column(name)[0].as_buffer(), kind)

    @property
    def n(self) -> int:
        return int(self.batch.column("n")[0].as_py())

    def floats(self, name: str) -> F32:
        """A column of n numbers, null if all are 1."""
        return self.array(name, np.float32) if self.has(name) else np.ones(self.n, np.float32)

    def ids(self, name: str) -> NDArray[Any]:
        """A column of n ids, of 4 or 8 bytes."""
        data = self.batch.column(name)[0].as_buffer()
        return np.frombuffer(data, np.int32 if len(data) == 4 * self.n else np.int64)


def _rows(batches: Iterable[pa.RecordBatch]) -> Iterator[_Row]:
    for batch in batches:
        for at in range(batch.num_rows):
            yield _Row(batch.slice(at, 1))


def _only(table: pa.Table, column: str) -> _Row:
    """The one row in which a column is not null."""
    rows = table.filter(pc.is_valid(table.column(column)))
    if rows.num_rows != 1:
        key = table.column("block")[0].as_py()
        raise RuntimeError(f"als: {column} of block {key} came {rows.num_rows} times, expected once")
    return _Row(rows.to_batches()[0])


def _row(schema: pa.Schema, **columns: pa.Array) -> pa.RecordBatch:
    """One row; columns that are not given are null."""
    arrays = [columns[each.name] if each.name in columns else pa.nulls(1, each.type) for each in schema]
    return pa.RecordBatch.from_arrays([array.cast(each.type) for array, each in zip(arrays, schema, strict=True)],
                                      schema=schema)  # fmt: skip


def _receive(block: Outline, table: pa.Table, step: HalfStep) -> F32:
    """The src factors that the block needs, in the order of its columns."""
    messages = table.filter(pc.is_valid(table.column("src_block")))
    factors: dict[int, F32] = {}
    for key, data in zip(messages.column("src_block"), messages.column("src_factors"), strict=True):
        if key.as_py() in factors:
            raise RuntimeError(f"als: block {block.key} got the factors of block {key} twice")
        factors[key.as_py()] = np.frombuffer(data.as_buffer(), np.float32).reshape(-1, step.rank)
    if SPLIT in block.needed:
        factors[SPLIT] = step.split[positions(block.needed_split, step.split_ids)]
    found = {key: len(rows) for key, rows in factors.items()}
    if found != block.needed:
        raise RuntimeError(f"als: block {block.key} got rows {found} of blocks, expected {block.needed}")
    return np.concatenate([factors[key] for key in block.needed])


def _start(block: Outline, table: pa.Table, d: int) -> F32:
    """The factors of the block's ids in the last iteration, zero for those without."""
    start = np.zeros((len(block.ids), d), np.float32)
    for row in _rows(table.filter(pc.is_valid(table.column("start_ids"))).to_batches()):
        at = positions(row.array("start_ids", np.int64), block.ids)
        start[at] = row.array("start", np.float32).reshape(-1, d)
    return start


def _pieces_of_split(
    block: Outline, ratings: Csr, weights: F32, src: F32, unobserved_weight: float
) -> Iterator[dict[str, Any]]:
    """STATE rows of the systems that the block has pieces of."""
    for at, key in enumerate(block.split, start=len(block.ids)):
        row = ratings.rows(at, at + 1)
        confidence = weights[ratings.indptr[at] : ratings.indptr[at + 1]]
        a, b = kernel.equations(row, confidence, src, unobserved_weight)
        yield {
            "block": block.key,
            "split": int(key),
            "a": a.tobytes(),
            "b": b.tobytes(),
            "n": int(counted_ratings(row, unobserved_weight)[0]),
            "loss": float(confidence.astype(np.float64) @ row.values.astype(np.float64) ** 2),
        }


def _send(block: Outline, factors: F32, systems: Iterable[dict[str, Any]], **sums: float) -> pa.Table:
    """STATE rows: the block, a message for each of its out-links, the pieces of systems."""
    factors = np.ascontiguousarray(factors, np.float32)
    state = {
        "block": block.key,
        "ids": block.ids.tobytes(),
        "factors": factors.tobytes(),
        "gram": kernel.gram(factors).tobytes(),
        **sums,
    }
    messages = [
        {"to": to, "block": block.key, "factors": factors[positions].tobytes()} for to, positions in block.links
    ]
    return pa.Table.from_pylist([state, *messages, *systems], STATE)
