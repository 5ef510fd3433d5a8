"""What a task makes of the pieces of its users: values of each, and sums of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sparkrec.kernels.arrays import F64, I64
from sparkrec.kernels.csr import located
from sparkrec.kernels.metrics.accuracy import accuracy
from sparkrec.kernels.metrics.hits import find_hits, first_repeat
from sparkrec.kernels.metrics.statistics import poisson_weights
from sparkrec.kernels.random import uniform
from sparkrec.spark.blocks import Ragged
from sparkrec.spark.pieces import ROWS, changes, numbers, whole_users

ALL = "all"
"""The segment of everyone."""
RECOMMENDED, RELEVANT, SEGMENT = 0, 1, 2
"""Sides of pieces."""
_ARRAYS = ("sums", "squares", "above", "below", "resampled")
TOTALS = "kind string, label string, segment string, n long, " + ", ".join(f"{name} array<double>" for name in _ARRAYS)
"""`kind`: values of a run; difference of one and the baseline; users; or something that is wrong."""


class Wanted(NamedTuple):
    """A metric."""

    name: str
    k: int | None


@dataclass(frozen=True)
class Judge:
    """Pieces to totals."""

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
        for table in whole_users(batches, ROWS // (1 + self.replicates // 64)):  # weights take room, too
            self._judge(table, totals)
        yield totals.batch()

    def _judge(self, table: pa.Table, totals: Totals) -> None:
        user, side = table["user"].to_numpy(), table["side"].to_numpy()
        labels = table["label"].combine_chunks().dictionary_encode(null_encoding="encode")
        code, names = labels.indices.to_numpy(), labels.dictionary.to_pylist()
        items, data = (numbers(table[name], kind) for name, kind in (("items", np.int64), ("data", np.float64)))

        rows = np.flatnonzero(side == RELEVANT)
        users, relevant, gains = _relevant(user[rows], items.take(rows), data.take(rows).values, totals)
        members = {ALL: np.arange(len(users))}
        about = np.flatnonzero(side == SEGMENT)
        at, there = located(user[about], users)
        for each in np.unique(code[about]):
            members[names[each]] = np.unique(at[there & (code[about] == each)])

        values = {}
        listed = np.flatnonzero(side == RECOMMENDED)
        for each in np.unique(code[listed]):
            rows = listed[code[listed] == each]
            lists = self._lists(user[rows], items.take(rows), data.take(rows).values, users, totals)
            if lists is not None:
                hits = find_hits(lists.lists, relevant.lists, gains)
                values[names[each]] = np.stack([accuracy(hits, name, k) for name, k in self.wanted], axis=1)
        weights = poisson_weights(self.seed, users, self.replicates)
        for segment, who in members.items():
            own = weights[who]
            totals.add("users", None, segment, np.ones((len(who), 1)), own)
            for run, each in values.items():
                totals.add("values", run, segment, each[who], own)
            nothing = np.zeros((len(users), len(self.wanted)))
            for run in self.runs:
                difference = values.get(run, nothing) - values.get(self.baseline, nothing)
                totals.add("difference", run, segment, difference[who], own)

    def _lists(self, user: I64, items: Ragged, data: F64, users: I64, totals: Totals) -> Ragged | None:
        """The list of each of the users, best first; None where something is wrong."""
        owner = np.repeat(user, items.lengths)
        item = items.values
        if self.order == "score":
            if np.isnan(data).any():
                totals.problem("nan", int(np.isnan(data).sum()))
                return None
            tie = uniform(self.seed, item ^ (owner << 20))
            order = np.lexsort((tie, -data, owner))
            owner, item = owner[order], item[order]
        else:
            falls = np.flatnonzero((owner[1:] == owner[:-1]) & (data[1:] <= data[:-1]))
            if len(falls):
                order = np.lexsort((data, owner))
                owner, item, data = owner[order], item[order], data[order]
        first = changes(owner)
        lists = Ragged.of_lengths(np.diff(np.append(first, len(owner))), item)
        if self.order != "score":
            place = np.arange(1, len(item) + 1) - np.repeat(lists.start[:-1], lists.lengths)
            if (wrong := data != place).any():
                totals.problem("ranks", int(wrong.sum()))
                return None
        if first_repeat(*lists.lists) >= 0:
            totals.problem("repeats", 1)
            return None
        at, has = located(users, owner[first])
        taken = lists.take(at[has])
        lengths = np.zeros(len(users), np.int64)
        lengths[has] = taken.lengths
        return Ragged.of_lengths(lengths, taken.values)


def _relevant(user: I64, items: Ragged, gain: F64, totals: Totals) -> tuple[I64, Ragged, F64]:
    """Users, ascending, their relevant items, ascending, and the gains of these."""
    owner = np.repeat(user, items.lengths)
    if (wrong := ~np.isfinite(gain)).any():
        totals.problem("relevance", int(wrong.sum()))
    there = gain > 0
    owner, item, gain = owner[there], items.values[there], gain[there]
    rises = (owner[1:] > owner[:-1]) | ((owner[1:] == owner[:-1]) & (item[1:] > item[:-1]))
    if not rises.all():
        order = np.lexsort((-gain, item, owner))
        owner, item, gain = owner[order], item[order], gain[order]
        once = changes(owner, item)
        owner, item, gain = owner[once], item[once], gain[once]
    first = changes(owner)
    gain = np.where(np.isfinite(gain), gain, 1.0)
    return owner[first], Ragged.of_lengths(np.diff(np.append(first, len(owner))), item), gain


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
