"""What a task of a half-step of ALS does with a block: Arrow in, Arrow out, no Spark. `layout` says what blocks are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sparkrec.kernels.als import half_step as kernel
from sparkrec.kernels.als.blocking import positions
from sparkrec.kernels.arrays import F32, F64, I64
from sparkrec.kernels.csr import Csr
from sparkrec.kernels.ragged import starts_of
from sparkrec.kernels.random import normal_rows
from sparkrec.spark.algorithms.als.plan import SPLIT, SidePlan
from sparkrec.spark.arrow.blocks import binary
from sparkrec.spark.arrow.packed_rows import Batches, each_row, only_row, rows_with, schema_of

FACTORS = schema_of(id=pa.int64(), value=pa.list_(pa.float32()))
START = schema_of(block=pa.int64(), start_ids=pa.binary(), start=pa.binary())
GRAM = schema_of(n=pa.int64(), gram=pa.binary())
STATE = schema_of(
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
        row = only_row(table, "links")
        needed = {
            each["block"].as_py(): np.frombuffer(each["ids"].as_buffer(), np.int64) for each in row.batch["needed"][0]
        }
        return cls(
            row.key("block"),
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
    row = only_row(table, "indptr")
    indptr = row.array("indptr", np.int64)
    n = int(indptr[-1])
    indices = row.integers("indices", n).astype(np.int32, copy=False)
    return Csr(indptr, indices, row.floats("value", n)), row.floats("confidence", n)


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
    kernel: Literal["numba", "torch"]
    side: str
    """user or item: what is solved."""


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
        half_step: Callable[..., tuple[F32, float]] = kernel.half_step
        try:
            if step.kernel == "torch":
                from sparkrec.kernels.als.on_gpu import half_step
            dst, loss = half_step(targets, confidence, src, step.gram, weight, reg, step.solver, start)
        except kernel.SingularSystem as error:
            row = error.row
            n = targets.indptr[row + 1] - targets.indptr[row]
            return pa.Table.from_pylist([{"failure": failure(step.side, block.ids[row], n, error)}], STATE)
        except ImportError as error:
            needed = f"als: kernel torch needs torch on every executor ({error}): install sparkrec[train] there."
            return pa.Table.from_pylist([{"failure": needed}], STATE)
        penalty = float(reg @ np.einsum("nd,nd->n", dst, dst, dtype=np.float64))
        systems = [*_pieces_of_split(block, ratings, weights, src, weight)]
        seconds = time.perf_counter() - started
        return _send(block, dst, systems, loss=loss, penalty=penalty, seconds=seconds)

    return solve


def counted_ratings(targets: Csr, unobserved_weight: float) -> I64:
    """Ratings of each row as regularization counts them: as MLlib, of implicit feedback only what was preferred."""
    if unobserved_weight == 0 or (targets.values > 0).all():
        return np.diff(targets.indptr)
    return np.diff(starts_of(targets.values > 0)[targets.indptr])


def failure(side: str, key: int, n_ratings: int, error: kernel.SingularSystem) -> str:
    """What to tell about a system without a solution, as `naming.named` takes it."""
    return (
        f"als: the system of {side} number {key} with {n_ratings} ratings has no finite solution: {error.reason}. "
        "Raise the regularization, or look for absurd ratings."
    )


def starter(d: int, scale: float, seed: int) -> Callable[[pa.Table], pa.Table]:
    """Factors to start from: given ones (start_ids, start) where there are, random ones drawn by id elsewhere."""

    def start(table: pa.Table) -> pa.Table:
        block = Outline.read(table)
        factors = (scale * normal_rows(seed, block.ids, d)).astype(np.float32)
        for ids, values in _given(table, d):
            known = np.isin(ids, block.ids)
            factors[positions(ids[known], block.ids)] = values[known]
        return _send(block, factors, [], loss=0.0, penalty=0.0, seconds=0.0)

    return start


def place(plan: SidePlan, keys: set[int]) -> Callable[[Iterable[pa.RecordBatch]], Batches]:
    """FACTORS as START, for those of the blocks that are there: as `starter` and a warm solver want them."""

    def send(batches: Iterable[pa.RecordBatch]) -> Batches:
        for ids, values in _factors(batches):
            homes = plan.homes(ids)
            for home in np.intersect1d(homes, [*keys]):
                here = homes == home
                yield pa.RecordBatch.from_pydict(
                    {"block": [int(home)], "start_ids": binary(ids[here]), "start": binary(values[here])}, START
                )

    return send


def only(wanted: I64) -> Callable[[Iterable[pa.RecordBatch]], Batches]:
    """FACTORS of the wanted ids."""

    def keep(batches: Iterable[pa.RecordBatch]) -> Batches:
        for ids, values in _factors(batches):
            here = np.isin(ids, wanted)
            yield from factors_table(ids[here], values[here]).to_batches()

    return keep


def factors_table(ids: I64, values: F32) -> pa.Table:
    """FACTORS of (n,) ids and (n, d) values."""
    offsets = np.arange(len(ids) + 1, dtype=np.int32) * values.shape[1]
    return pa.Table.from_arrays([pa.array(ids), pa.ListArray.from_arrays(offsets, values.ravel())], schema=FACTORS)


def _factors(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[I64, F32]]:
    """(n,) ids and (n, d) values of FACTORS, of batches that have any."""
    for batch in batches:
        if batch.num_rows:
            ids = batch.column("id").to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
            values = batch.column("value").flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
            yield ids, values.reshape(len(ids), -1)


def grams(batches: Iterable[pa.RecordBatch]) -> Batches:
    """GRAM of FACTORS, without their ids."""
    for batch in batches:
        if batch.num_rows:
            values = batch.column("value").flatten().to_numpy(zero_copy_only=False)
            gram = kernel.gram(values.reshape(batch.num_rows, -1).astype(np.float32, copy=False))
            yield pa.RecordBatch.from_pydict({"n": [batch.num_rows], "gram": binary(gram.ravel())})


def unpack(batches: Iterable[pa.RecordBatch]) -> Batches:
    """FACTORS of blocks (ids, factors)."""
    for row in each_row(batches):
        ids, values = row.array("ids", np.int64), row.array("factors", np.float32)
        if len(ids):
            yield from factors_table(ids, values.reshape(len(ids), -1)).to_batches()


def _receive(block: Outline, table: pa.Table, step: HalfStep) -> F32:
    """The src factors that the block needs, in the order of its columns."""
    factors: dict[int, F32] = {}
    for row in rows_with(table, "src_block"):
        key = row.key("src_block")
        if key in factors:
            raise RuntimeError(f"als: block {block.key} got the factors of block {key} twice")
        factors[key] = row.array("src_factors", np.float32).reshape(-1, step.rank)
    if SPLIT in block.needed:
        factors[SPLIT] = step.split[positions(block.needed_split, step.split_ids)]
    found = {key: len(rows) for key, rows in factors.items()}
    if found != block.needed:
        raise RuntimeError(f"als: block {block.key} got rows {found} of blocks, expected {block.needed}")
    return np.concatenate([factors[key] for key in block.needed])


def _start(block: Outline, table: pa.Table, d: int) -> F32:
    """The factors of the block's ids in the last iteration, zero for those without."""
    start = np.zeros((len(block.ids), d), np.float32)
    for ids, values in _given(table, d):
        start[positions(ids, block.ids)] = values
    return start


def _given(table: pa.Table, d: int) -> Iterator[tuple[I64, F32]]:
    """Ids and their factors, of the rows that bring some to start from."""
    for row in rows_with(table, "start_ids"):
        yield row.array("start_ids", np.int64), row.array("start", np.float32).reshape(-1, d)


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
