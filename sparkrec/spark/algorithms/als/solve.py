"""One side of ALS solved from the other, in parallel over its blocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from sparkrec.errors import TrainError
from sparkrec.kernels.als import half_step as kernel
from sparkrec.kernels.arrays import F32, F64, I64
from sparkrec.kernels.random import normal_rows
from sparkrec.spark.algorithms.als import block
from sparkrec.spark.algorithms.als.layout import Side
from sparkrec.spark.algorithms.als.settings import AlsSettings
from sparkrec.spark.model.rows import matrix
from sparkrec.spark.runner import GroupFunction, RowFunction, Rows

_SUMS = [name for name in block.STATE.names if name not in ("to", "ids", "factors")]


@dataclass(frozen=True)
class State:
    """One side, solved: rows of STATE, the factors of the split ids, and the sums over all."""

    rows: Rows
    split_ids: I64
    split: F32
    gram: F64
    loss: float = 0.0
    penalty: float = 0.0
    seconds: float = 0.0
    """In kernels, all tasks together."""

    def factors(self) -> Rows:
        """A row (id, value array<float>) for each id."""
        blocks = self.rows.where_present("ids").select("ids", "factors")
        factors = blocks.map_rows(RowFunction(block.FACTORS, block.unpack))
        if len(self.split_ids) == 0:
            return factors
        return factors.union(factors.of(block.factors_table(self.split_ids, self.split)))

    def messages(self) -> Rows:
        return self.rows.where_present("to").select(block="to", src_block="block", src_factors="factors")

    def as_start(self) -> Rows:
        """The factors of every block, for a solver that goes on from them."""
        return self.rows.where_present("ids").select("block", start_ids="ids", start="factors")


@dataclass(frozen=True)
class SideSolver:
    """How one side is solved."""

    side: Side
    n_src: int
    settings: AlsSettings
    seed: int

    @property
    def solver(self) -> kernel.Solver:
        settings = self.settings
        if settings.nonnegative:
            return kernel.Solver("nonnegative")
        if settings.solver == "ials++":
            return kernel.Solver("coordinate", width=settings.coordinates)
        return kernel.Solver(settings.solver, steps=settings.cg_steps)

    def start(self, given: Rows | None) -> State:
        """The factors before the first iteration: given ones (id, value), and random ones for the other ids."""
        settings, plan = self.settings, self.side.plan
        scale = settings.init_scale / np.sqrt(settings.rank)
        split = (scale * normal_rows(self.seed, plan.split, settings.rank)).astype(np.float32)
        if given is None:
            placed = self.side.outlines.of(block.START.empty_table())
        else:
            given = given.select("id", "value")
            placed = given.map_rows(RowFunction(block.START, block.place(plan, self.side.keys)))
            if len(plan.split):
                known = given.map_rows(RowFunction(block.FACTORS, block.only(plan.split))).table()
                split[plan.split_at(known["id"].to_numpy())] = matrix(known["value"].combine_chunks())
        starter = block.starter(settings.rank, scale, self.seed)
        return self._state(self.side.without_ratings(placed), starter, lambda _: (split, 0.0, 0.0))

    def half_step(self, src: State, before: State | None) -> State:
        """Solve every block from the messages to it, and the split ids here. Raises TrainError."""
        settings, solver = self.settings, self.solver
        step = block.HalfStep(
            rank=settings.rank,
            unobserved_weight=settings.unobserved_weight,
            penalty=penalty_of(settings, self.n_src),
            solver=solver,
            gram=src.gram * settings.unobserved_weight,
            split_ids=src.split_ids,
            split=src.split,
            kernel=settings.kernel,
            side=self.side.name,
        )
        others = src.messages()
        if solver.needs_start and before is not None:
            others = others.union(before.as_start())
        start = before.split if before else None
        blocks = self.side.with_ratings(others)
        return self._state(blocks, block.solver(step), lambda pieces: _solve_split(step, pieces, start))

    def _state(
        self,
        blocks: Rows,
        task: Callable[[pa.Table], pa.Table],
        solve_split: Callable[[list[dict[str, Any]]], tuple[F32, float, float]],
    ) -> State:
        """Run `task` on every block, computed once and cut from its history."""
        state = blocks.map_groups("block", GroupFunction(block.STATE, task)).computed()
        rows = state.where_null("to").select(*_SUMS).table().to_pylist()
        if failures := sorted(row["failure"] for row in rows if row["failure"]):
            raise TrainError(failures[0])
        sums = sorted((row for row in rows if row["split"] is None), key=lambda row: row["block"])  # one order of sums
        if [row["block"] for row in sums] != sorted(self.side.keys):
            found = [row["block"] for row in sums]
            raise RuntimeError(f"als: solved blocks {found}, expected {sorted(self.side.keys)}")
        of_split = (row for row in rows if row["split"] is not None)
        split, loss, penalty = solve_split(sorted(of_split, key=lambda row: (row["split"], row["block"])))
        return State(
            state,
            self.side.plan.split,
            split,
            np.sum([np.frombuffer(row["gram"]) for row in sums], axis=0).reshape(2 * (self.settings.rank,))
            + kernel.gram(split),
            loss + math.fsum(row["loss"] for row in sums),
            penalty + math.fsum(row["penalty"] for row in sums),
            math.fsum(row["seconds"] for row in sums),
        )


def penalty_of(settings: AlsSettings, n_src: int) -> block.Penalty:
    """reg_u of rows by their number of ratings; `n_src` is the size of the other side."""
    more = settings.unobserved_weight * n_src if settings.regularization_scaling == "ials" else 0.0
    return block.Penalty(settings.regularization, more, settings.regularization_exponent)


def _solve_split(step: block.HalfStep, pieces: list[dict[str, Any]], start: F32 | None) -> tuple[F32, float, float]:
    """Factors of the ids that are split, their squared errors and penalty, from the pieces of their systems."""
    factors, losses, penalties = [], [], []
    for at, (key, group) in enumerate(groupby(pieces, key=lambda row: row["split"])):
        mine = list(group)
        a = np.sum([np.frombuffer(row["a"]) for row in mine], axis=0).reshape(2 * (step.rank,)) + step.gram
        b = np.sum([np.frombuffer(row["b"]) for row in mine], axis=0)
        n = sum(row["n"] for row in mine)
        reg = float(step.penalty(np.array([n]))[0])
        try:
            x = kernel.solve(a, b, reg, step.solver, None if start is None else start[at])
        except kernel.SingularSystem as error:
            raise TrainError(block.failure(step.side, key, n, error)) from None
        factors.append(x.astype(np.float32))
        losses.append(float(x @ a @ x - 2 * b @ x) + math.fsum(row["loss"] for row in mine))
        penalties.append(reg * float(x @ x))
    return np.array(factors, np.float32).reshape(-1, step.rank), math.fsum(losses), math.fsum(penalties)
