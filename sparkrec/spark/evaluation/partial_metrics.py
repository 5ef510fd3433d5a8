"""What a task makes of the rows of its users: sums and weights of every metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sparkrec.kernels.arrays import F64, I32, I64, Lists
from sparkrec.kernels.csr import located
from sparkrec.kernels.metrics.hits import stand
from sparkrec.kernels.metrics.measures import Batch, Catalogue, NotOneRelevant, Relevant, Sums, is_of_items, sums
from sparkrec.kernels.metrics.statistics import poisson_weights
from sparkrec.kernels.random import uniform
from sparkrec.kernels.rankings import by_item, by_place, by_score, first_repeat, numbered, places
from sparkrec.spark.evaluation.buckets import NOBODY, Rows, Table, whole_users
from sparkrec.spark.evaluation.totals import Totals

ALL = "all"
"""The segment of everyone."""
RECOMMENDED, RELEVANT, SEGMENT, BEFORE = 0, 1, 2, 3
"""Sides of buckets."""
_WEIGHTS = 1 << 21
"""Of the bootstrap, at a time."""
Problem = Callable[[str, int], None]
"""Is told what kind of thing is wrong, and with how many."""


class Wanted(NamedTuple):
    """A metric."""

    name: str
    k: int | None

    @property
    def title(self) -> str:
        return self.name if self.k is None else f"{self.name}@{self.k}"


class Judged(NamedTuple):
    """What is found of some users."""

    users: I64
    values: dict[tuple[str, str | None, str], Sums]
    """By kind, run, and ALL or a segment of items."""
    listed: dict[str | None, Lists]
    """By run, rows of the catalogue."""
    counted: I64
    """Users with relevant items: places in `users`."""
    members: dict[str, I64]
    """Of each segment of users, their places in `users`."""


@dataclass(frozen=True)
class Judge:
    """Buckets to totals."""

    wanted: tuple[Wanted, ...]
    cutoffs: tuple[int, ...]
    """At which the items of all lists are counted."""
    order: str
    """What `data` of what is recommended says: list and rank, the place; score."""
    seed: int
    replicates: int
    """Of the bootstrap."""
    runs: tuple[str | None, ...]
    baseline: str | None
    """The run that all others are compared with."""
    items: Catalogue
    size: int
    """Of the catalogue that sampled candidates are from."""

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        totals = Totals()
        for table in whole_users(batches):
            judged = self.judge(table, totals.problem)
            self._add(judged, totals)
            self._count(judged, totals)
        yield from totals.batches()

    def judge(self, table: Table, problem: Problem) -> Judged:
        """Of all rows of some users. Runs whose lists are none have no values."""
        for (side, label), rows in table.items():
            if side == NOBODY:
                problem("nobody", len(rows.user))
            if side == SEGMENT and label == ALL:
                problem("everyone", len(rows.user))
        users, code = _users(table)
        n = len(users)
        of = {key: (rows, code[key]) for key, rows in table.items()}
        parts = {label: each for (side, label), each in of.items() if side == RELEVANT}
        relevant = {ALL: _relevant([*parts.values()], n, problem)}
        relevant |= {label: _relevant([each], n, problem) for label, each in parts.items() if label}
        groups = {label: own for (side, label), (_, own) in of.items() if side == SEGMENT and label is not None}
        members = {label: np.unique(own).astype(np.int64) for label, own in groups.items()}
        if both := relevant.keys() & members.keys():
            problem("segments", len(both))
        had = [each for (side, _), each in of.items() if side == BEFORE]
        before = self._in_catalogue(_by_item(had, n), problem)
        found = Judged(users, {}, {}, np.flatnonzero(np.diff(relevant[ALL].items[0])), members)
        for run in self.runs:
            lists = self._lists(*of.get((RECOMMENDED, run), (_NO_ROWS, np.zeros(0, np.int32))), n, problem)
            if lists is None:
                continue
            found.listed[run] = self._in_catalogue(lists[0], problem)
            clicked = stand(*lists[0], *relevant[ALL].items)[0] > 0
            for view, each in relevant.items():
                batch = Batch(*lists, clicked, each, found.listed[run], before)
                found.values["values", run, view] = self._values(batch, view, problem)
        for _, run, view in [*found.values] if self.baseline is not None else ():
            ours, theirs = (found.values.get(("values", each, view)) for each in (run, self.baseline))
            if run != self.baseline and ours and theirs:
                found.values["difference", run, view] = _difference(ours, theirs)
        return found

    def _lists(self, rows: Rows, code: I32, users: int, problem: Problem) -> tuple[Lists, F64] | None:
        """The list of each of the users, best first, and scores; None where something is wrong."""
        if self.order == "score":
            data = rows.data if rows.data is not None else np.zeros(0)
            if np.isnan(data).any():
                problem("nan", int(np.isnan(data).sum()))
                return None
            user, item = rows.user, rows.item
            if rows.lengths is not None:
                user, code = np.repeat(user, rows.lengths), np.repeat(code, rows.lengths)
            if not (ranked := data > -np.inf).all():
                user, code, item, data = user[ranked], code[ranked], item[ranked], data[ranked]
            start, items, scores = by_score(code, users, data, uniform(self.seed, item ^ (user << 20)), item)
        else:
            if rows.lengths is not None:
                code, place = np.repeat(code, rows.lengths), places(np.append(0, np.cumsum(rows.lengths)))
            else:
                data = rows.data if rows.data is not None else np.zeros(0)
                place = np.where(data == np.floor(data), data, 0.0).astype(np.int64)
            start, items, wrong = by_place(code, users, place, rows.item)
            if wrong:
                problem("ranks", wrong)
                return None
            scores = -places(start).astype(np.float64)
        if first_repeat(start, items) >= 0:
            problem("repeats", 1)
            return None
        return (start, items), scores

    def _in_catalogue(self, lists: Lists, problem: Problem) -> Lists:
        """As rows of the catalogue, where there is one."""
        if not len(self.items.ids):
            return np.zeros(len(lists[0]), np.int64), np.zeros(0, np.int64)
        at, there = located(lists[1], self.items.ids)
        if not there.all():
            problem("unknown", int((~there).sum()))
        return lists[0], np.where(there, at, 0)

    def _values(self, batch: Batch, view: str, problem: Problem) -> Sums:
        try:
            total, weight = sums(batch, self.wanted, self.items, self.size)
        except NotOneRelevant as error:
            problem("candidates", error.users)
            total, weight = np.zeros((2, len(batch.ranked[0]) - 1, len(self.wanted)))
        if view != ALL:
            weight[:, [at for at, (name, _) in enumerate(self.wanted) if not is_of_items(name)]] = 0.0
        return total, weight

    def _add(self, judged: Judged, totals: Totals) -> None:
        step = max(1, _WEIGHTS // max(self.replicates, 1))
        for first in range(0, len(judged.users), step):
            drawn = poisson_weights(self.seed, judged.users[first : first + step], self.replicates)
            for (kind, run, view), (total, weight) in judged.values.items():
                chunk = slice(first, first + step)
                totals.add(kind, run, view, total[chunk], weight[chunk], drawn)
                for segment, who in judged.members.items() if view == ALL else ():
                    own = who[slice(*np.searchsorted(who, (first, first + step)))]
                    totals.add(kind, run, segment, total[own], weight[own], drawn[own - first])

    def _count(self, judged: Judged, totals: Totals) -> None:
        for run, (start, rows) in judged.listed.items() if self.cutoffs else ():
            whose, place = np.repeat(np.arange(len(start) - 1), np.diff(start)), places(start)
            there = judged.counted[np.diff(start)[judged.counted] > 0]
            for segment, who in {ALL: there, **judged.members}.items():
                own = np.intersect1d(who, there)
                of_segment = np.isin(whose, own)
                for k in self.cutoffs:
                    counts = np.bincount(rows[of_segment & (place <= k)], minlength=len(self.items.ids))
                    totals.count(run, segment, k, counts, len(own))


_NO_ROWS = Rows(np.zeros(0, np.int64), None, np.zeros(0, np.int64), None, None)


def _users(table: Table) -> tuple[I64, dict[tuple[int, str | None], I32]]:
    """The users of all rows, and which of them each row is of."""
    users, code = numbered(np.concatenate([rows.user for rows in table.values()]))
    ends = np.cumsum([len(rows.user) for rows in table.values()])
    return users, dict(zip(table, np.split(code, ends[:-1]), strict=True))


def _relevant(parts: list[tuple[Rows, I32]], users: int, problem: Problem) -> Relevant:
    code, item = _joined(parts)
    gain = _data([rows.data for rows, _ in parts], len(item), 1.0)
    if (wrong := ~np.isfinite(gain)).any():
        problem("relevance", int(wrong.sum()))
    there = np.isfinite(gain) & (gain > 0)
    start, items, gains = by_item(code[there], users, item[there], gain[there])
    beaten = None
    if any(rows.beaten is not None for rows, _ in parts):
        share = _data([rows.beaten for rows, _ in parts], len(item), 0.0)
        _, _, beaten = by_item(code[there], users, item[there], share[there])
    rated = (start, items, gains) if there.all() else by_item(code, users, item, gain)
    return Relevant((start, items), gains, beaten, rated[:2], rated[2])


def _by_item(parts: list[tuple[Rows, I32]], users: int) -> Lists:
    code, item = _joined(parts)
    start, items, _ = by_item(code, users, item, np.zeros(len(item)))
    return start, items


def _joined(parts: list[tuple[Rows, I32]]) -> tuple[I32, I64]:
    code = np.concatenate([np.zeros(0, np.int32), *(own for _, own in parts)])
    return code, np.concatenate([np.zeros(0, np.int64), *(rows.item for rows, _ in parts)])


def _data(parts: list[F64 | None], n: int, default: float) -> F64:
    if not parts or parts[0] is None:
        return np.full(n, default)
    return np.concatenate([each for each in parts if each is not None])


def _difference(ours: Sums, theirs: Sums) -> Sums:
    """Of users that have both, weighed as the others are."""
    both = (ours[1] != 0) & (theirs[1] != 0)
    mine, yours = (np.divide(*each, out=np.zeros(both.shape), where=both) for each in (ours, theirs))
    weight = np.where(both, theirs[1], 0.0)
    return (mine - yours) * weight, weight
