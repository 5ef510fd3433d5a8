"""Tasks that measure users: sums and weights of every metric, from all rows of these users in buckets.

PartialMetrics  sums over the users of a task
UserMetrics     the value of each user
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa

from sparkrec.errors import EvaluateError
from sparkrec.kernels.arrays import F64, I32, I64, Lists
from sparkrec.kernels.csr import located
from sparkrec.kernels.metrics.hits import locate_hits
from sparkrec.kernels.metrics.measures import Batch, ItemFacts, NotOneRelevant, Relevant, Sums, is_of_items, sums
from sparkrec.kernels.metrics.statistics import poisson_weights
from sparkrec.kernels.ragged import rows_of, starts_of
from sparkrec.kernels.random import uniform
from sparkrec.kernels.rankings import by_item, by_place, by_score, first_repeat, numbered, places
from sparkrec.spark.arrow.packed_rows import schema_of
from sparkrec.spark.evaluation.buckets import NOBODY, BucketRows, BucketTable, whole_users
from sparkrec.spark.evaluation.totals import SCHEMA, PartialTotals

ALL = "all"
"""The segment of everyone."""
RECOMMENDED, RELEVANT, SEGMENT, BEFORE = 0, 1, 2, 3
"""Sides of buckets."""
_WEIGHTS = 1 << 21
"""Weights of the bootstrap that are drawn at a time."""
Problem: TypeAlias = Callable[[str, int], None]
"""Is told the kind of faulty rows, a key of PROBLEMS, and how many there are."""
PROBLEMS = {
    "nobody": "found {n:,} rows whose user or item is null, expected none. Drop those rows.",
    "everyone": "segments: found {n:,} users in a segment named all, which is that of everyone. Name it otherwise.",
    "segments": "segments: found a segment of items with the name of one of users, expected different names.",
    "nan": "recommendations: found {n:,} scores that are null or NaN, expected numbers. Drop those rows, or mend the "
    "model.",
    "ranks": "recommendations: found {n:,} ranks that are not 1, 2, 3, ... of their user, expected one of each. Number "
    "them anew, or pass scores instead.",
    "repeats": "recommendations: found an item more than once in the list of a user, expected each once: it would "
    "count twice. Drop duplicates.",
    "relevance": "relevant: found {n:,} rows whose relevance is null, NaN or infinite, expected a finite number.",
    "unknown": "items: found {n:,} rows of recommendations or before whose item is not in the catalogue, expected all. "
    "Pass items that has them.",
    "candidates": "relevant: found {n:,} users with more than one relevant item, expected one, as corrected metrics "
    "take it: one item among sampled ones.",
}
"""What can be wrong with rows: the message of each kind, about n of them."""


class MetricSpec(NamedTuple):
    """A metric, with its cutoff where it has one."""

    name: str
    k: int | None

    @property
    def title(self) -> str:
        return self.name if self.k is None else f"{self.name}@{self.k}"


class UserValues(NamedTuple):
    """What some users contribute."""

    users: I64
    """(u,) ascending."""
    values: dict[tuple[str, str | None, str], Sums]
    """By kind ("values" or "difference"), run, and ALL or a segment of items: sums and weights (u, metrics)."""
    listed: dict[str | None, Lists]
    """By run: the lists of the users, as rows of the catalogue."""
    counted: I64
    """Positions in `users` of those with relevant items."""
    members: dict[str, I64]
    """Of each segment of users, their positions in `users`."""


@dataclass(frozen=True)
class MetricAggregator:
    """Measures users from all their rows, and adds the values up."""

    metrics: tuple[MetricSpec, ...]
    cutoffs: tuple[int, ...]
    """Cutoffs at which the items of all lists are counted."""
    order: str
    """What `data` of recommended items is: their place, for list and rank; or their score."""
    seed: int
    replicates: int
    """Samples of the bootstrap."""
    runs: tuple[str | None, ...]
    baseline: str | None
    """The run that all others are compared with."""
    items: ItemFacts
    sampled_from: int
    """Size of the catalogue that candidates were sampled from."""

    def user_values(self, table: BucketTable, problem: Problem) -> UserValues:
        """Measure the users whose rows these are. Runs with faulty lists have no values."""
        for (side, label), rows in table.items():
            if side == NOBODY:
                problem("nobody", len(rows.user))
            if side == SEGMENT and label == ALL:
                problem("everyone", len(rows.user))
        users, code = _users(table)
        n = len(users)
        coded = {key: (rows, code[key]) for key, rows in table.items()}
        parts = {label: part for (side, label), part in coded.items() if side == RELEVANT}
        relevant = {ALL: _relevant([*parts.values()], n, problem)}
        relevant |= {label: _relevant([part], n, problem) for label, part in parts.items() if label}
        groups = {label: own for (side, label), (_, own) in coded.items() if side == SEGMENT and label is not None}
        members = {label: np.unique(own).astype(np.int64) for label, own in groups.items()}
        if both := relevant.keys() & members.keys():
            problem("segments", len(both))
        had = [part for (side, _), part in coded.items() if side == BEFORE]
        before = self._in_catalogue(_by_item(had, n), problem)
        result = UserValues(users, {}, {}, np.flatnonzero(np.diff(relevant[ALL].items[0])), members)
        for run in self.runs:
            lists = self._lists(*coded.get((RECOMMENDED, run), (_NO_ROWS, np.zeros(0, np.int32))), n, problem)
            if lists is None:
                continue
            result.listed[run] = self._in_catalogue(lists[0], problem)
            clicked = locate_hits(*lists[0], *relevant[ALL].items)[0] > 0
            for view, part in relevant.items():
                batch = Batch(*lists, clicked, part, result.listed[run], before)
                result.values["values", run, view] = self._values(batch, view, problem)
        for _, run, view in [*result.values] if self.baseline is not None else ():
            ours, theirs = (result.values.get(("values", either, view)) for either in (run, self.baseline))
            if run != self.baseline and ours and theirs:
                result.values["difference", run, view] = _difference(ours, theirs)
        return result

    def add(self, values: UserValues, totals: PartialTotals) -> None:
        """Add the values of users, in all their segments and samples of the bootstrap, and count the items of lists."""
        step = max(1, _WEIGHTS // max(self.replicates, 1))
        for first in range(0, len(values.users), step):
            drawn = poisson_weights(self.seed, values.users[first : first + step], self.replicates)
            for (kind, run, view), (total, weight) in values.values.items():
                chunk = slice(first, first + step)
                totals.add(kind, run, view, total[chunk], weight[chunk], drawn)
                for segment, members in values.members.items() if view == ALL else ():
                    own = members[slice(*np.searchsorted(members, (first, first + step)))]
                    totals.add(kind, run, segment, total[own], weight[own], drawn[own - first])
        self._count_items(values, totals)

    def _lists(self, rows: BucketRows, code: I32, users: int, problem: Problem) -> tuple[Lists, F64] | None:
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
                code, place = np.repeat(code, rows.lengths), places(starts_of(rows.lengths))
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
        at, known = located(lists[1], self.items.ids)
        if not known.all():
            problem("unknown", int((~known).sum()))
        return lists[0], np.where(known, at, 0)

    def _values(self, batch: Batch, view: str, problem: Problem) -> Sums:
        try:
            total, weight = sums(batch, self.metrics, self.items, self.sampled_from)
        except NotOneRelevant as error:
            problem("candidates", error.users)
            total, weight = np.zeros((2, len(batch.ranked[0]) - 1, len(self.metrics)))
        if view != ALL:
            weight[:, [at for at, (name, _) in enumerate(self.metrics) if not is_of_items(name)]] = 0.0
        return total, weight

    def _count_items(self, values: UserValues, totals: PartialTotals) -> None:
        for run, (start, rows) in values.listed.items() if self.cutoffs else ():
            user, place = rows_of(start), places(start)
            with_list = values.counted[np.diff(start)[values.counted] > 0]
            for segment, members in {ALL: with_list, **values.members}.items():
                own = np.intersect1d(members, with_list)
                of_segment = np.isin(user, own)
                for k in self.cutoffs:
                    counts = np.bincount(rows[of_segment & (place <= k)], minlength=len(self.items.ids))
                    totals.count(run, segment, k, counts, len(own))


@dataclass(frozen=True)
class PartialMetrics:
    """The task that sums up all users of a task, from their rows in buckets: rows of `totals.SCHEMA`."""

    aggregator: MetricAggregator

    @property
    def schema(self) -> pa.Schema:
        return SCHEMA

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        totals = PartialTotals()
        for table in whole_users(batches):
            self.aggregator.add(self.aggregator.user_values(table, totals.problem), totals)
        yield from totals.batches()


@dataclass(frozen=True)
class UserMetrics:
    """The task that yields the value of every metric of each user, from their rows in buckets.

    Raises EvaluateError for faulty rows. A value is null where the metric is not defined of the user.
    """

    aggregator: MetricAggregator

    @property
    def schema(self) -> pa.Schema:
        values = {metric.title: pa.float64() for metric in self.aggregator.metrics}
        return schema_of(user=pa.int64(), run=pa.string(), **values)

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        roots = [metric.name == "rmse" for metric in self.aggregator.metrics]
        for table in whole_users(batches):
            users = self.aggregator.user_values(table, _refuse)
            own = users.counted
            for (_, run, view), (total, weight) in users.values.items():
                if view == ALL and len(own):
                    value = np.divide(total, weight, out=np.full(total.shape, np.nan), where=weight != 0)[own]
                    value[:, roots] **= 0.5
                    columns = [pa.array(column, from_pandas=True) for column in value.T]
                    runs = pa.array([run] * len(own), pa.string())
                    yield pa.RecordBatch.from_arrays([pa.array(users.users[own]), runs, *columns], schema=self.schema)


def _refuse(kind: str, n: int) -> None:
    raise EvaluateError(PROBLEMS[kind].format(n=n))


_NO_ROWS = BucketRows(np.zeros(0, np.int64), None, np.zeros(0, np.int64), None, None)


def _users(table: BucketTable) -> tuple[I64, dict[tuple[int, str | None], I32]]:
    """The users of all rows, and which of them each row is of."""
    users, code = numbered(np.concatenate([rows.user for rows in table.values()]))
    ends = np.cumsum([len(rows.user) for rows in table.values()])
    return users, dict(zip(table, np.split(code, ends[:-1]), strict=True))


def _relevant(parts: list[tuple[BucketRows, I32]], users: int, problem: Problem) -> Relevant:
    code, item = _joined(parts)
    gain = _data([rows.data for rows, _ in parts], len(item), 1.0)
    if (wrong := ~np.isfinite(gain)).any():
        problem("relevance", int(wrong.sum()))
    liked = np.isfinite(gain) & (gain > 0)
    start, items, gains = by_item(code[liked], users, item[liked], gain[liked])
    auc_share = None
    if any(rows.auc_share is not None for rows, _ in parts):
        share = _data([rows.auc_share for rows, _ in parts], len(item), 0.0)
        _, _, auc_share = by_item(code[liked], users, item[liked], share[liked])
    rated = (start, items, gains) if liked.all() else by_item(code, users, item, gain)
    return Relevant((start, items), gains, auc_share, rated[:2], rated[2])


def _by_item(parts: list[tuple[BucketRows, I32]], users: int) -> Lists:
    code, item = _joined(parts)
    start, items, _ = by_item(code, users, item, np.zeros(len(item)))
    return start, items


def _joined(parts: list[tuple[BucketRows, I32]]) -> tuple[I32, I64]:
    code = np.concatenate([np.zeros(0, np.int32), *(own for _, own in parts)])
    return code, np.concatenate([np.zeros(0, np.int64), *(rows.item for rows, _ in parts)])


def _data(parts: list[F64 | None], n: int, default: float) -> F64:
    if not parts or parts[0] is None:
        return np.full(n, default)
    return np.concatenate([part for part in parts if part is not None])


def _difference(ours: Sums, theirs: Sums) -> Sums:
    """Of users that have both, weighed as the others are."""
    both = (ours[1] != 0) & (theirs[1] != 0)
    mine, yours = (np.divide(*each, out=np.zeros(both.shape), where=both) for each in (ours, theirs))
    weight = np.where(both, theirs[1], 0.0)
    return (mine - yours) * weight, weight
