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
    user=pa.binary(),
    item=pa.binary(),
    value=pa.binary(),
    confidence=pa.binary(),
    **_TALLIES,
    unusable=pa.int64(),
    example=pa.string(),
)
"""Ratings as they come, columns as arrays (int64, int64, float32, float32). Last in each partition, a row with the
tallies of all its ids (int64 and int32 arrays, as `blocking.tally`), how many rows cannot be used, and one of them;
value and confidence are null there if they are 1 throughout."""

PIECE = _schema(block=pa.int64(), dst=pa.binary(), src=pa.binary(), value=pa.binary(), confidence=pa.binary())
"""The ratings of a chunk that belong to a block."""

IN_BLOCK = _schema(
    block=pa.int64(),
    ids=pa.binary(),
    split=pa.binary(),
    indptr=pa.binary(),
    indices=pa.binary(),
    value=pa.binary(),
    confidence=pa.binary(),
    needed=_NEEDED,
    n_ids=pa.int64(),
)
"""A block of `als_layout`."""

OUT_LINKS = _schema(block=pa.int64(), links=_LINKS)

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


def chunks(batches: Iterable[pa.RecordBatch]) -> Batches:
    """CHUNK rows of batches (user long, item long, value float, confidence float)."""
    counts = {side: np.zeros(BUCKETS, np.int64) for side in ("user", "item")}
    registers = {side: np.zeros(REGISTERS, np.int32) for side in ("user", "item")}
    not_plain: dict[str, pa.Array] = {}
    unusable, example = 0, None
    empty = True
    for table in _joined(batches, CHUNK_ROWS):
        empty = False
        bad = _unusable(table)
        if bad.any():
            unusable += int(bad.sum())
            example = ", ".join(
                f"{name} {value}" for name, value in table.slice(int(bad.argmax()), 1).to_pylist()[0].items()
            )
            continue
        columns = {name: table.column(name).to_numpy() for name in table.column_names}
        for side in counts:
            in_buckets, seen = tally(hashed(columns[side]), BUCKETS)
            counts[side] += in_buckets
            np.maximum(registers[side], seen, out=registers[side])
        for name in ("value", "confidence"):
            if not (columns[name] == 1).all():
                not_plain[name] = binary(np.zeros(0, np.float32))
        yield _row(CHUNK, **{name: binary(values) for name, values in columns.items()})
    if not empty:
        tallies = {f"{side}_counts": binary(counts[side]) for side in counts}
        tallies |= {f"{side}_registers": binary(registers[side]) for side in registers}
        yield _row(
            CHUNK, **tallies, **not_plain, unusable=pa.array([unusable]), example=pa.array([example], pa.string())
        )


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
            ids = row.array(side, np.int64)
            distinct, counts = np.unique(ids[wanted[hashed(ids) % BUCKETS]], return_counts=True)
            yield pa.RecordBatch.from_pydict({"id": distinct, "count": counts})

    return count


def pieces(plan: SidePlan, dst: str, src: str, plain: tuple[str, ...]) -> Callable[[Iterable[pa.RecordBatch]], Batches]:
    """PIECE rows of CHUNK rows, for the blocks of side `dst`; columns in `plain` are 1 throughout and left out."""

    def cut(batches: Iterable[pa.RecordBatch]) -> Batches:
        for row in _rows(batches):
            columns = {"dst": row.array(dst, np.int64), "src": row.array(src, np.int64)}
            for name in ("value", "confidence"):
                if name not in plain:
                    columns[name] = row.array(name, np.float32)
            block = plan.blocks_of_ratings(columns["dst"], columns["src"])
            order = np.argsort(block.astype(np.int16) if len(plan.keys) < 1 << 15 else block, kind="stable")
            ends = np.cumsum(np.bincount(block, minlength=len(plan.keys)))
            columns = {name: values[order] for name, values in columns.items()}
            for at, (first, stop) in enumerate(zip(np.concatenate(([0], ends)), ends, strict=False)):
                if first < stop:
                    part = {name: binary(values[first:stop]) for name, values in columns.items()}
                    yield _row(PIECE, block=pa.array([plan.keys[at]]), **part)

    return cut


def assemble(dst_plan: SidePlan, src_plan: SidePlan) -> Callable[[pa.Table], pa.Table]:
    """The IN_BLOCK row of all PIECE rows of a block."""

    def put_together(table: pa.Table) -> pa.Table:
        def joined(name: str, kind: type[np.generic]) -> NDArray[Any] | None:
            column = table.column(name)
            if column.null_count:
                return None
            return np.concatenate([np.frombuffer(each.as_buffer(), kind) for each in column])

        dst, src = joined("dst", np.int64), joined("src", np.int64)
        assert dst is not None
        assert src is not None
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
        indptr, order = grouped(rows, place[columns], len(own) + len(split))
        needed = [
            {"block": int(home), "ids": src_ids[by_home[homes[by_home] == home]].tobytes()} for home in np.unique(homes)
        ]
        out = {
            "block": table.column("block").slice(0, 1).combine_chunks(),
            "ids": binary(own),
            "split": binary(split),
            "indptr": binary(indptr),
            "indices": binary(place[columns][order]),
            "needed": pa.array([needed], _NEEDED),
            "n_ids": pa.array([len(own)]),
        }
        for name in ("value", "confidence"):
            values = joined(name, np.float32)
            if values is not None:
                out[name] = binary(values[order])
        return pa.Table.from_batches([_row(IN_BLOCK, **out)])

    return put_together


def link(table: pa.Table) -> pa.Table:
    """OUT_LINKS of a block from a row with its `own` ids and rows (to, wanted) of what other blocks need of them."""
    key = table.column("block")[0].as_py()
    own = table.filter(pc.is_valid(table.column("own")))
    wanted = table.filter(pc.is_valid(table.column("wanted")))
    if own.num_rows != 1:
        raise RuntimeError(f"als: block {key} came {own.num_rows} times, expected once")
    ids = np.frombuffer(own.column("own")[0].as_buffer(), np.int64)
    links = [
        {
            "block": to.as_py(),
            "positions": positions(np.frombuffer(each.as_buffer(), np.int64), ids).astype(np.int32).tobytes(),
        }
        for to, each in zip(wanted.column("to"), wanted.column("wanted"), strict=True)
    ]
    return pa.Table.from_pylist([{"block": key, "links": sorted(links, key=lambda link: link["block"])}], OUT_LINKS)


@dataclass(frozen=True)
class Block:
    """An in-block and its out-links, as arrays that share their memory."""

    key: int
    ids: I64
    split: I64
    """Ids whose pieces are the rows of `targets` after those of `ids`."""
    targets: Csr
    confidence: F32
    needed: dict[int, int]
    """src block -> number of rows that come from it."""
    needed_split: I64
    """Ids of those that come from the driver."""
    links: list[tuple[int, NDArray[np.int32]]]
    """dst block of the next half-step -> positions of the rows it needs."""

    @classmethod
    def read(cls, table: pa.Table) -> Block:
        """Raises RuntimeError unless the rows have one in-block and its links once."""
        key = table.column("block")[0].as_py()
        found = []
        for column in ("ids", "links"):
            rows = table.filter(pc.is_valid(table.column(column)))
            if rows.num_rows != 1:
                raise RuntimeError(f"als: {column} of block {key} came {rows.num_rows} times, expected once")
            found.append(_Row(rows.to_batches()[0]))
        row, links = found
        indptr, indices = row.array("indptr", np.int64), row.array("indices", np.int32)

        def values(name: str) -> F32:
            return row.array(name, np.float32) if row.has(name) else np.ones(len(indices), np.float32)

        wanted = {
            each["block"].as_py(): np.frombuffer(each["ids"].as_buffer(), np.int64) for each in row.batch["needed"][0]
        }
        positions = [
            (each["block"].as_py(), np.frombuffer(each["positions"].as_buffer(), np.int32))
            for each in links.batch["links"][0]
        ]
        return cls(
            key,
            row.array("ids", np.int64),
            row.array("split", np.int64),
            Csr(indptr, indices, values("value")),
            values("confidence"),
            {home: len(ids) for home, ids in wanted.items()},
            wanted.get(SPLIT, np.zeros(0, np.int64)),
            positions,
        )


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
    """The half-step of one block: its in-block, its links and the messages to it in; STATE rows out."""

    def solve(table: pa.Table) -> pa.Table:
        block = Block.read(table)
        src = _receive(block, table, step)
        started = time.perf_counter()
        n_own = len(block.ids)
        targets, confidence = block.targets.rows(0, n_own), block.confidence[: block.targets.indptr[n_own]]
        reg = step.penalty(counted_ratings(block.targets, step.unobserved_weight)[:n_own])
        start = _start(block, table, step.rank) if step.solver.needs_start else None
        weight = step.unobserved_weight
        try:
            dst, loss = kernel.half_step(targets, confidence, src, step.gram, weight, reg, step.solver, start)
        except kernel.SingularSystem as error:
            row = error.row
            n = targets.indptr[row + 1] - targets.indptr[row]
            return pa.Table.from_pylist([{"failure": failure(block.ids[row], n, error)}], STATE)
        penalty = float(reg @ np.einsum("nd,nd->n", dst, dst, dtype=np.float64))
        systems = _pieces_of_split(block, src, weight)
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
        block = Block.read(table)
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
            ids = batch.column("id").to_numpy(zero_copy_only=False)
            values = batch.column("value").flatten().to_numpy(zero_copy_only=False).reshape(len(ids), -1)
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


def _rows(batches: Iterable[pa.RecordBatch]) -> Iterator[_Row]:
    for batch in batches:
        for at in range(batch.num_rows):
            yield _Row(batch.slice(at, 1))


def _row(schema: pa.Schema, **columns: pa.Array) -> pa.RecordBatch:
    """One row; columns that are not given are null."""
    arrays = [columns[each.name] if each.name in columns else pa.nulls(1, each.type) for each in schema]
    return pa.RecordBatch.from_arrays([array.cast(each.type) for array, each in zip(arrays, schema, strict=True)],
                                      schema=schema)  # fmt: skip


def _receive(block: Block, table: pa.Table, step: HalfStep) -> F32:
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


def _start(block: Block, table: pa.Table, d: int) -> F32:
    """The factors of the block's ids in the last iteration, zero for those without."""
    start = np.zeros((len(block.ids), d), np.float32)
    for row in _rows(table.filter(pc.is_valid(table.column("start_ids"))).to_batches()):
        at = positions(row.array("start_ids", np.int64), block.ids)
        start[at] = row.array("start", np.float32).reshape(-1, d)
    return start


def _pieces_of_split(block: Block, src: F32, unobserved_weight: float) -> Iterator[dict[str, Any]]:
    """STATE rows of the systems that the block has pieces of."""
    for at, key in enumerate(block.split, start=len(block.ids)):
        row = block.targets.rows(at, at + 1)
        confidence = block.confidence[block.targets.indptr[at] : block.targets.indptr[at + 1]]
        a, b = kernel.equations(row, confidence, src, unobserved_weight)
        yield {
            "block": block.key,
            "split": int(key),
            "a": a.tobytes(),
            "b": b.tobytes(),
            "n": int(counted_ratings(row, unobserved_weight)[0]),
            "loss": float(confidence.astype(np.float64) @ row.values.astype(np.float64) ** 2),
        }


def _send(block: Block, factors: F32, systems: Iterable[dict[str, Any]], **sums: float) -> pa.Table:
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
