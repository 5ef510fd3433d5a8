"""What a task makes of the rows of its users: values of each, and sums of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sparkrec.kernels.arrays import F64, I32, I64, Lists
from sparkrec.kernels.metrics.accuracy import accuracy
from sparkrec.kernels.metrics.hits import find_hits
from sparkrec.kernels.metrics.statistics import poisson_weights
from sparkrec.kernels.random import uniform
from sparkrec.kernels.rankings import by_item, by_place, by_score, first_repeat, numbered, places
from sparkrec.spark.buckets import NOBODY, Rows, Table, whole_users

ALL = "all"
"""The segment of everyone."""
RECOMMENDED, RELEVANT, SEGMENT = 0, 1, 2
"""Sides of buckets."""
_ARRAYS = ("sums", "squares", "above", "below", "resampled")
TOTALS = "kind string, label string, segment string, n long, " + ", ".join(f"{name} array<double>" for name in _ARRAYS)
"""`kind`: values of a run; difference of one and the baseline; users; or something that is wrong."""
_WEIGHTS = 1 << 21
"""Of the bootstrap, at a time."""


class Wanted(NamedTuple):
    """A metric."""

    name: str
    k: int | None


@dataclass(frozen=True)
class Judge:
    """Buckets to totals."""

    wanted: tuple[Wanted, ...]
    order: str
    """What `data` of what is recommended says: list and rank, the place; score."""
    seed: int
    replicates: int = 0
    """Of the bootstrap."""
    baseline: str | None = None
    """The run that others are compared with."""
    runs: tuple[str, ...] = ()
    """All others, where there is a baseline."""

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        totals = Totals()
        for table in whole_users(batches):
            self._judge(table, totals)
        yield totals.batch()

    def _judge(self, table: Table, totals: Totals) -> None:
        for (side, label), rows in table.items():
            if side == NOBODY:
                totals.problem("nobody", len(rows.user))
            if side == SEGMENT and label == ALL:
                totals.problem("everyone", len(rows.user))
        users, code = _users(table)
        if (RELEVANT, None) not in table:
            return
        relevant, gains = _relevant(table[RELEVANT, None], code[RELEVANT, None], len(users), totals)
        counted = np.diff(relevant[0]) > 0
        members = {ALL: np.flatnonzero(counted)}
        values: dict[tuple[str, str | None], F64] = {}
        for (side, label), rows in table.items():
            own = code[side, label]
            if side == SEGMENT and label is not None:
                members[label] = np.unique(own[counted[own]])
            if side == RECOMMENDED and (lists := self._lists(rows, own, len(users), totals)):
                hits = find_hits(lists, relevant, gains)
                values["values", label] = np.stack([accuracy(hits, name, k) for name, k in self.wanted], axis=1)
        nothing = np.zeros((len(users), len(self.wanted)))
        for run in self.runs:
            theirs = values.get(("values", self.baseline), nothing)
            values["difference", run] = values.get(("values", run), nothing) - theirs
        step = max(1, _WEIGHTS // max(self.replicates, 1))
        for first in range(0, len(users), step):
            weights = poisson_weights(self.seed, users[first : first + step], self.replicates)
            for segment, everyone in members.items():
                who = everyone[slice(*np.searchsorted(everyone, (first, first + step)))]
                totals.add("users", None, segment, np.ones((len(who), 1)), weights[who - first])
                for (kind, label), each in values.items():
                    totals.add(kind, label, segment, each[who], weights[who - first])

    def _lists(self, rows: Rows, code: I32, users: int, totals: Totals) -> Lists | None:
        """The list of each of the users, best first; None where something is wrong."""
        if rows.lengths is not None:
            code = np.repeat(code, rows.lengths)
            data = places(np.append(0, np.cumsum(rows.lengths))).astype(np.float64)
        else:
            assert rows.data is not None
            data = rows.data
        if self.order == "score":
            if np.isnan(data).any():
                totals.problem("nan", int(np.isnan(data).sum()))
                return None
            tie = uniform(self.seed, rows.item ^ (rows.user << 20))
            start, items, _ = by_score(code, users, data, tie, rows.item)
        else:
            place = np.where(data == np.floor(data), data, 0.0).astype(np.int64)
            start, items, wrong = by_place(code, users, place, rows.item)
            if wrong:
                totals.problem("ranks", wrong)
                return None
        if first_repeat(start, items) >= 0:
            totals.problem("repeats", 1)
            return None
        return start, items


def _users(table: Table) -> tuple[I64, dict[tuple[int, str | None], I32]]:
    """The users of all rows, and which of them each row is of."""
    users, code = numbered(np.concatenate([rows.user for rows in table.values()]))
    ends = np.cumsum([len(rows.user) for rows in table.values()])
    return users, dict(zip(table, np.split(code, ends[:-1]), strict=True))


def _relevant(rows: Rows, code: I32, users: int, totals: Totals) -> tuple[Lists, F64]:
    """The relevant items of each user, ascending, and the gains of these."""
    gain = np.ones(len(code)) if rows.data is None else rows.data
    if (wrong := ~np.isfinite(gain)).any():
        totals.problem("relevance", int(wrong.sum()))
    there = np.isfinite(gain) & (gain > 0)
    start, items, gains = by_item(code[there], users, rows.item[there], gain[there])
    return (start, items), gains


class Totals:
    """Of the values of users, by what they are, run and segment; and what was wrong."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str | None, str], tuple[int, list[F64]]] = {}
        self.problems: dict[str, int] = {}

    def add(self, kind: str, run: str | None, segment: str, values: F64, weights: F64) -> None:
        """(u, m) values and (u, b) weights of the bootstrap."""
        own = values.sum(axis=0), (values**2).sum(axis=0), (values > 0).sum(axis=0), (values < 0).sum(axis=0)
        parts = [*(each.astype(np.float64) for each in own), (weights.T @ values).ravel()]
        n, before = self.found.get((kind, run, segment), (0, [np.zeros(len(each)) for each in parts]))
        self.found[kind, run, segment] = n + len(values), [a + b for a, b in zip(before, parts, strict=True)]

    def problem(self, kind: str, n: int) -> None:
        self.problems[kind] = self.problems.get(kind, 0) + n

    def batch(self) -> pa.RecordBatch:
        """Rows of TOTALS."""
        rows = [
            {"kind": kind, "label": run, "segment": segment, "n": n, **dict(zip(_ARRAYS, parts, strict=True))}
            for (kind, run, segment), (n, parts) in self.found.items()
        ]
        rows += [{"kind": kind, "n": n} for kind, n in self.problems.items()]
        texts = [(name, pa.string()) for name in ("kind", "label", "segment")]
        schema = pa.schema([*texts, ("n", pa.int64()), *((name, pa.list_(pa.float64())) for name in _ARRAYS)])
        return pa.RecordBatch.from_pylist(rows, schema)
