"""What one task of ALS does with one block: Arrow tables in, Arrow tables out, no Spark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkrec.config import AlsSettings
from sparkrec.kernels import als as kernel
from sparkrec.kernels.csr import Csr
from sparkrec.kernels.random import normal_rows

_LINKS = "array<struct<block: long, positions: binary>>"
IN_BLOCK = f"block long, ids binary, indptr binary, indices binary, values binary, confidence binary, needed {_LINKS}"
"""An in-block, as `als_layout` describes it; the solver's rows have `links` too."""

STATE = "to long, block long, ids binary, factors binary, gram binary, loss double, penalty double, failure string"
"""What a solved block gives: its factors (`to` is null), and a message to each block that needs some of them. A system
without a solution is a row with `failure`: an exception in a worker would reach its reader as a Java stack trace."""

_ARROW_LINKS = pa.list_(pa.struct([("block", pa.int64()), ("positions", pa.binary())]))
_ARROW_IN_BLOCK = pa.schema(
    [
        ("block", pa.int64()),
        *[(name, pa.binary()) for name in ("ids", "indptr", "indices", "values", "confidence")],
        ("needed", _ARROW_LINKS),
    ]
)
_ARROW_STATE = pa.schema(
    [
        ("to", pa.int64()),
        ("block", pa.int64()),
        *[(name, pa.binary()) for name in ("ids", "factors", "gram")],
        *[(name, pa.float64()) for name in ("loss", "penalty")],
        ("failure", pa.string()),
    ]
)


def pack_in_block(ratings: pa.Table) -> pa.Table:
    """One row of IN_BLOCK from all ratings of a dst block."""
    column = {name: ratings.column(name).to_numpy() for name in ratings.column_names}
    rows = column["position"].astype(np.int64)
    ids = np.empty(rows.max() + 1, dtype=np.int64)
    ids[rows] = column["id"]
    blocks = np.unique(column["src_block"])
    columns = np.empty(len(rows), dtype=np.int32)
    needed, start = [], 0
    for block in blocks:
        here = np.flatnonzero(column["src_block"] == block)
        positions, inverse = np.unique(column["src_position"][here], return_inverse=True)
        columns[here] = start + inverse
        needed.append({"block": int(block), "positions": positions.astype(np.int32).tobytes()})
        start += len(positions)
    # In this order the sums of a row do not depend on where its ratings came from.
    order = np.lexsort((column["confidence"], column["value"], columns, rows))
    indptr = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=len(ids)))))
    return pa.Table.from_pylist(
        [
            {
                "block": int(column["block"][0]),
                "ids": ids.tobytes(),
                "indptr": indptr.astype(np.int64).tobytes(),
                "indices": columns[order].tobytes(),
                "values": column["value"][order].astype(np.float32).tobytes(),
                "confidence": column["confidence"][order].astype(np.float32).tobytes(),
                "needed": needed,
            }
        ],
        schema=_ARROW_IN_BLOCK,
    )


@dataclass(frozen=True)
class InBlock:
    """One row of LAYOUT, as arrays that share its memory."""

    block: int
    ids: np.ndarray
    targets: Csr
    confidence: np.ndarray
    needed: dict[int, int]
    """src block -> number of rows it sends."""
    links: list[tuple[int, np.ndarray]]
    """dst block of the next half-step -> positions of the rows it needs."""

    @classmethod
    def read(cls, rows: pa.Table | pa.RecordBatch, i: int = 0) -> InBlock:
        row = {name: rows.column(name)[i] for name in rows.schema.names}

        def array(name: str, kind: type) -> np.ndarray:
            return np.frombuffer(row[name].as_buffer(), dtype=kind)

        targets = Csr(array("indptr", np.int64), array("indices", np.int32), array("values", np.float32))
        needed = {each["block"].as_py(): len(each["positions"].as_buffer()) // 4 for each in row["needed"]}
        links = [
            (each["block"].as_py(), np.frombuffer(each["positions"].as_buffer(), dtype=np.int32))
            for each in row["links"]
        ]
        ids = array("ids", np.int64)
        return cls(row["block"].as_py(), ids, targets, array("confidence", np.float32), needed, links)


Batches = Iterator[pa.RecordBatch]


def starter(d: int, scale: float, seed: int) -> Callable[[Batches], Batches]:
    """Random factors (n, d) of every block, drawn by id."""

    def start(batches: Batches) -> Batches:
        for batch in batches:
            for i in range(batch.num_rows):
                block = InBlock.read(batch, i)
                yield from _send(block, scale * normal_rows(seed, block.ids, d), 0.0, 0.0).to_batches()

    return start


def restorer(d: int) -> Callable[[pa.Table], pa.Table]:
    """Factors of a block from a snapshot: the block's row, and a row (position, value) for each of its ids."""

    def restore(table: pa.Table) -> pa.Table:
        block = InBlock.read(table.filter(pc.is_valid(table.column("ids"))))
        rows = table.filter(pc.is_valid(table.column("position"))).sort_by("position")
        values = rows.column("value").combine_chunks().flatten().to_numpy()
        return _send(block, values.reshape(len(block.ids), d), 0.0, 0.0)

    return restore


def solver(settings: AlsSettings, gram: np.ndarray, n_src: int) -> Callable[[pa.Table], pa.Table]:
    """The half-step of one block: its row and the messages to it in, its new factors and messages out."""
    weight, exponent = settings.unobserved_weight, settings.regularization_exponent
    regularization, d = settings.regularization, settings.rank

    def solve(rows: pa.Table) -> pa.Table:
        block, src = _receive(rows, d)
        n_ratings = np.diff(block.targets.indptr)
        reg = regularization * (n_ratings + weight * n_src) ** exponent
        try:
            dst = kernel.half_step(block.targets, block.confidence, src, gram, weight, reg)
        except kernel.SingularSystem as error:
            return _failure(
                f"als: the system of id {block.ids[error.row]} with {n_ratings[error.row]} ratings has no finite "
                "solution. Raise model.regularization, or look for absurd ratings."
            )
        loss = kernel.squared_loss(block.targets, block.confidence, dst, src, weight, gram)
        penalty = float(reg @ np.einsum("nd,nd->n", dst, dst, dtype=np.float64))
        return _send(block, dst, loss, penalty)

    return solve


def _receive(rows: pa.Table, d: int) -> tuple[InBlock, np.ndarray]:
    """The in-block among the rows of a group, and the src factors it needs in the order of its columns."""
    own = rows.filter(pc.is_valid(rows.column("ids")))
    sent = rows.filter(pc.is_valid(rows.column("src_block")))
    if own.num_rows != 1:
        raise RuntimeError(f"als: block {rows.column('block')[0]} came {own.num_rows} times, expected once")
    block = InBlock.read(own)
    factors: dict[int, np.ndarray] = {}
    for key, data in zip(sent.column("src_block"), sent.column("src_factors"), strict=True):
        if key.as_py() in factors:
            raise RuntimeError(f"als: block {block.block} got the factors of block {key} twice")
        factors[key.as_py()] = np.frombuffer(data.as_buffer(), dtype=np.float32).reshape(-1, d)
    found = {key: len(rows) for key, rows in factors.items()}
    if found != block.needed:
        raise RuntimeError(f"als: block {block.block} got rows {found} of blocks, expected {block.needed}")
    return block, np.concatenate([factors[key] for key in block.needed])


def _send(block: InBlock, factors: np.ndarray, loss: float, penalty: float) -> pa.Table:
    """The block's state, and a message for each of its out-links."""
    factors = np.ascontiguousarray(factors, dtype=np.float32)
    state = {
        "block": block.block,
        "ids": block.ids.tobytes(),
        "factors": factors.tobytes(),
        "gram": kernel.gram(factors).tobytes(),
        "loss": loss,
        "penalty": penalty,
    }
    messages = [
        {"to": to, "block": block.block, "factors": factors[positions].tobytes()} for to, positions in block.links
    ]
    return pa.Table.from_pylist([state, *messages], schema=_ARROW_STATE)


def _failure(message: str) -> pa.Table:
    return pa.Table.from_pylist([{"failure": message}], schema=_ARROW_STATE)


def unpack(batches: Batches) -> Batches:
    """Rows (id, value) of blocks (ids, factors)."""
    for batch in batches:
        for ids, factors in zip(batch.column("ids"), batch.column("factors"), strict=True):
            keys = np.frombuffer(ids.as_buffer(), dtype=np.int64)
            values = np.frombuffer(factors.as_buffer(), dtype=np.float32)
            width = len(values) // len(keys)
            offsets = np.arange(0, len(values) + 1, width, dtype=np.int32)
            lists = pa.ListArray.from_arrays(offsets, values)
            yield pa.RecordBatch.from_arrays([pa.array(keys), lists], names=["id", "value"])
