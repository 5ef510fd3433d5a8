"""Metrics of recommendations in any DataFrame, however they were made: one pass, sums by user in any order.

Rows about a user, recommended, relevant or its segments, become pieces: arrays of what a task finds of a user, so that
Spark moves and sorts thousands of pieces instead of millions of rows. Pieces of a user meet in one task, which goes
over them in the order of users and keeps sums, sums of squares and counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, IntegralType

from sparkrec.errors import EvaluateError
from sparkrec.kernels.arrays import F64, I64
from sparkrec.kernels.metrics.accuracy import AT_CUTOFF, WHOLE, accuracy
from sparkrec.kernels.metrics.hits import find_hits, first_repeat
from sparkrec.kernels.random import uniform
from sparkrec.spark.blocks import Ragged, read_lists
from sparkrec.spark.sources import require_columns

ALL = "all"
"""The segment of everyone."""
_RECOMMENDED, _RELEVANT, _SEGMENT = 0, 1, 2
_PIECES = "user long, side int, label string, items binary, data binary"
_SUMS = "kind string, label string, segment string, n long, sums array<double>, squares array<double>"
_ROWS = 1 << 20
"""Rows at a time from which pieces are made, and numbers that are judged at once."""
_Z = 1.959963984540054
"""Of the normal distribution, for an interval of 95 %."""


class _Metric(NamedTuple):
    name: str
    k: int | None


def evaluate(
    recommendations: DataFrame,
    relevant: DataFrame,
    metrics: Sequence[str] = ("ndcg", "recall", "hit_rate", "map", "mrr", "precision"),
    k: Sequence[int] = (10,),
    segments: DataFrame | None = None,
    by: str | None = None,
    seed: int = 0,
) -> DataFrame:
    """Accuracy of recommendations: (`by`, metric, k, segment, value, standard_error, low, high, users).

    recommendations  (user, item, rank), ranks from 1 without holes; or (user, item, score), whose ties are in an order
                     drawn by `seed`, so that equal scores are worth what chance is; or (user, item), items an array,
                     best first. Of rank and score, rank counts
    relevant         (user, item) and, for graded gains, relevance: rows of 0 or less are not relevant; of a pair that
                     comes twice the greater one counts
    metrics          names of `kernels.metrics.accuracy`
    segments         (user, segment), of which a user may have any number
    by               column of `recommendations` that tells runs apart, each of which is measured

    A user counts where it has relevant items, in every run, with an empty list where it has none. `value` is the mean
    over users, low and high are 1.96 standard errors from it. Ids may be of any type, the same on both sides.
    Raises EvaluateError for what is none of this.
    """
    wanted = _wanted(metrics, k)
    _check(recommendations, relevant, segments, by)
    lists = isinstance(recommendations.schema["item"].dataType, ArrayType)
    ranked = "rank" in recommendations.columns
    label = F.col(by).cast("string") if by else F.lit(None).cast("string")
    order = F.col("rank" if ranked else "score").cast("double") if not lists else F.lit(None).cast("double")
    gain = F.col("relevance").cast("double") if "relevance" in relevant.columns else F.lit(1.0)
    pieces = _pieces(recommendations, label, order, _RECOMMENDED, lists)
    pieces = pieces.unionAll(_pieces(relevant, F.lit(None).cast("string"), gain, _RELEVANT))
    if segments is not None:
        about = segments.withColumn("item", F.lit(0))
        pieces = pieces.unionAll(_pieces(about, F.col("segment").cast("string"), F.lit(0.0), _SEGMENT))
    task = _Task(tuple(wanted), "list" if lists else "rank" if ranked else "score", seed)
    found = pieces.repartition("user").sortWithinPartitions("user").mapInArrow(task, _SUMS).collect()
    rows = _tidy(found, wanted)
    name = by or "by"
    schema = (
        f"`{name}` string, metric string, k int, segment string, value double, standard_error double, low double, "
        "high double, users long"
    )
    tidy = recommendations.sparkSession.createDataFrame(rows, schema)
    return tidy if by else tidy.drop(name)


def _wanted(metrics: Sequence[str], k: Sequence[int]) -> list[_Metric]:
    known = {**AT_CUTOFF, **WHOLE}
    if unknown := [name for name in metrics if name not in known]:
        raise EvaluateError(f"metrics: found {', '.join(map(repr, unknown))}, expected any of {', '.join(known)}")
    if wrong := [each for each in k if isinstance(each, bool) or not isinstance(each, int) or each < 1]:
        raise EvaluateError(f"k: found {wrong[0]!r}, expected whole numbers from 1")
    wanted = [_Metric(name, each) for name in metrics if name in AT_CUTOFF for each in sorted(set(k))]
    wanted += [_Metric(name, None) for name in metrics if name in WHOLE]
    if not wanted:
        raise EvaluateError("nothing to measure: found no metric with a cutoff in `metrics` and `k`")
    return wanted


def _check(recommendations: DataFrame, relevant: DataFrame, segments: DataFrame | None, by: str | None) -> None:
    require_columns(recommendations, ["user", "item", *([by] if by else [])], "recommendations")
    require_columns(relevant, ["user", "item"], "relevant")
    item = recommendations.schema["item"].dataType
    if not isinstance(item, ArrayType) and not {"rank", "score"}.intersection(recommendations.columns):
        raise EvaluateError(
            "recommendations: found neither rank nor score, and no array of items: expected an order of each list"
        )
    sides = [("relevant", relevant, "user"), ("relevant", relevant, "item")]
    if segments is not None:
        require_columns(segments, ["user", "segment"], "segments")
        sides.append(("segments", segments, "user"))
    for title, frame, name in sides:
        here, there = recommendations.schema[name].dataType, frame.schema[name].dataType
        here = here.elementType if isinstance(here, ArrayType) else here
        if here != there and not (isinstance(here, IntegralType) and isinstance(there, IntegralType)):
            raise EvaluateError(
                f"{name}: found {here.simpleString()} in recommendations and {there.simpleString()} in {title}; "
                "expected one type. Cast one of them."
            )


def _pieces(frame: DataFrame, label: Column, data: Column, side: int, lists: bool = False) -> DataFrame:
    """Arrays of what a task finds of a user."""

    def number(name: str) -> Column:
        kind = frame.schema[name].dataType
        if isinstance(kind, ArrayType):
            whole = isinstance(kind.elementType, IntegralType)
            return F.transform(name, lambda each: each.cast("long") if whole else F.xxhash64(each)).alias(name)
        return (F.col(name).cast("long") if isinstance(kind, IntegralType) else F.xxhash64(name)).alias(name)

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        if lists:
            yield from (_of_lists(batch, side) for batch in batches)
            return
        held: list[pa.RecordBatch] = []
        for batch in batches:
            held.append(batch)
            if sum(each.num_rows for each in held) >= _ROWS:
                yield _of_rows(pa.Table.from_batches(held), side)
                held = []
        if held:
            yield _of_rows(pa.Table.from_batches(held), side)

    rows = frame.select(number("user"), label.alias("label"), number("item"), data.alias("data"))
    return rows.mapInArrow(work, _PIECES)


def _of_lists(batch: pa.RecordBatch, side: int) -> pa.RecordBatch:
    """Each row a piece."""
    lists = read_lists(batch.column("item"), np.int64)
    places = np.arange(1.0, len(lists.values) + 1) - np.repeat(lists.start[:-1], lists.lengths)
    return _batch(batch.column("user"), batch.column("label"), side, lists.start, lists.values, places)


def _of_rows(table: pa.Table, side: int) -> pa.RecordBatch:
    """Consecutive rows of a user and label as one piece; where few are, in their order."""
    user, item, data = (table[name].to_numpy() for name in ("user", "item", "data"))
    labels = table["label"].combine_chunks().dictionary_encode(null_encoding="encode")
    labels = labels.chunk(0) if isinstance(labels, pa.ChunkedArray) else labels
    code = labels.indices.to_numpy()
    first = _changes(user, code)
    if 4 * len(first) > len(user):
        order = np.lexsort((code, user))
        user, item, data, code = (each[order] for each in (user, item, data, code))
        first = _changes(user, code)
    start = np.append(first, len(user))
    return _batch(pa.array(user[first]), labels.dictionary.take(pa.array(code[first])), side, start, item, data)


def _changes(*columns: Any) -> I64:
    """Where a run of equal rows begins."""
    n = len(columns[0])
    other = np.ones(n, np.bool_)
    other[1:] = np.any([each[1:] != each[:-1] for each in columns], axis=0)
    return np.flatnonzero(other)


def _batch(user: pa.Array, label: pa.Array, side: int, start: I64, item: I64, data: F64) -> pa.RecordBatch:
    """Pieces of rows start[i] ... start[i + 1] - 1."""
    offsets = pa.py_buffer((8 * (start - start[0])).astype(np.int32))

    def binary(values: Any) -> pa.Array:
        return pa.Array.from_buffers(
            pa.binary(), len(user), [None, offsets, pa.py_buffer(np.ascontiguousarray(values[start[0] : start[-1]]))]
        )

    sides = pa.array(np.full(len(user), side, np.int32))
    columns = [user, sides, label.cast(pa.string()), binary(item), binary(data)]
    return pa.RecordBatch.from_arrays(columns, ["user", "side", "label", "items", "data"])


@dataclass(frozen=True)
class _Task:
    """What a task makes of the pieces of its users."""

    wanted: tuple[_Metric, ...]
    order: str
    """What `data` of what is recommended says: list and rank, the place; score."""
    seed: int

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        sums = _Sums(len(self.wanted))
        for table in _whole_users(batches):
            self._judge(table, sums)
        yield sums.batch()

    def _judge(self, table: pa.Table, sums: _Sums) -> None:
        user, side = table["user"].to_numpy(), table["side"].to_numpy()
        labels = table["label"].combine_chunks().dictionary_encode(null_encoding="encode")
        labels = labels.chunk(0) if isinstance(labels, pa.ChunkedArray) else labels
        code, names = labels.indices.to_numpy(), labels.dictionary.to_pylist()
        items, data = (_numbers(table[name], kind) for name, kind in (("items", np.int64), ("data", np.float64)))

        rows = np.flatnonzero(side == _RELEVANT)
        users, relevant, gains = _relevant(user[rows], items.take(rows), data.take(rows).values, sums)
        members = [(ALL, np.arange(len(users)))]
        if len(about := np.flatnonzero(side == _SEGMENT)):
            at = np.searchsorted(users, user[about])
            there = at < len(users)
            there[there] = users[at[there]] == user[about][there]
            for each in np.unique(code[about]):
                members.append((names[each], np.unique(at[there & (code[about] == each)])))
        for segment, who in members:
            sums.add_users(segment, len(who))

        listed = np.flatnonzero(side == _RECOMMENDED)
        for each in np.unique(code[listed]):
            rows = listed[code[listed] == each]
            lists = self._lists(user[rows], items.take(rows), data.take(rows).values, users, sums)
            if lists is None:
                continue
            hits = find_hits(lists.lists, relevant.lists, gains)
            values = np.stack([accuracy(hits, name, k) for name, k in self.wanted], axis=1)
            for segment, who in members:
                sums.add(names[each], segment, values[who])

    def _lists(self, user: I64, items: Ragged, data: F64, users: I64, sums: _Sums) -> Ragged | None:
        """The list of each of the users, best first; None where something is wrong."""
        owner = np.repeat(user, items.lengths)
        item = items.values
        if self.order == "score":
            if np.isnan(data).any():
                sums.problem("nan", int(np.isnan(data).sum()), owner[np.isnan(data)][0])
                return None
            tie = uniform(self.seed, item ^ (owner << 20))
            order = np.lexsort((tie, -data, owner))
            owner, item = owner[order], item[order]
        else:
            falls = np.flatnonzero((owner[1:] == owner[:-1]) & (data[1:] <= data[:-1]))
            if len(falls):
                order = np.lexsort((data, owner))
                owner, item, data = owner[order], item[order], data[order]
        first = _changes(owner)
        lists = Ragged.of_lengths(np.diff(np.append(first, len(owner))), item)
        if self.order != "score":
            place = np.arange(1, len(item) + 1) - np.repeat(lists.start[:-1], lists.lengths)
            if (wrong := data != place).any():
                sums.problem("ranks", int(wrong.sum()), owner[wrong][0])
                return None
        if (row := first_repeat(*lists.lists)) >= 0:
            sums.problem("repeats", 1, owner[first[row]])
            return None
        owners = owner[first]
        at = np.searchsorted(owners, users)
        has = at < len(owners)
        has[has] = owners[at[has]] == users[has]
        taken = lists.take(at[has])
        lengths = np.zeros(len(users), np.int64)
        lengths[has] = taken.lengths
        return Ragged.of_lengths(lengths, taken.values)


def _relevant(user: I64, items: Ragged, gain: F64, sums: _Sums) -> tuple[I64, Ragged, F64]:
    """Users, ascending, their relevant items, ascending, and the gains of these."""
    owner = np.repeat(user, items.lengths)
    if (wrong := ~np.isfinite(gain)).any():
        sums.problem("relevance", int(wrong.sum()), owner[wrong][0])
    there = gain > 0
    owner, item, gain = owner[there], items.values[there], gain[there]
    rises = (owner[1:] > owner[:-1]) | ((owner[1:] == owner[:-1]) & (item[1:] > item[:-1]))
    if not rises.all():
        order = np.lexsort((-gain, item, owner))
        owner, item, gain = owner[order], item[order], gain[order]
        once = _changes(owner, item)
        owner, item, gain = owner[once], item[once], gain[once]
    first = _changes(owner)
    gain = np.where(np.isfinite(gain), gain, 1.0)
    return owner[first], Ragged.of_lengths(np.diff(np.append(first, len(owner))), item), gain


def _numbers(column: pa.ChunkedArray, kind: type[np.generic]) -> Ragged:
    """The arrays of a binary column."""
    whole = column.combine_chunks()
    whole = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
    _, offsets, values = whole.buffers()
    start = np.frombuffer(offsets, np.int32)[whole.offset : whole.offset + len(whole) + 1].astype(np.int64) // 8
    numbers = np.frombuffer(values, kind) if values is not None else np.zeros(0, kind)
    return Ragged(start - start[0], numbers[start[0] : start[-1]])


def _whole_users(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Pieces that come user after user, in tables of whole users with about _ROWS numbers."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        if not batch.num_rows:
            continue
        if size >= _ROWS:
            user = batch.column("user").to_numpy()
            last = held[-1].column("user")[-1].as_py()
            if (same := int(np.searchsorted(user, last, side="right"))) < len(user):
                yield pa.Table.from_batches([*held, batch.slice(0, same)])
                batch, held, size = batch.slice(same), [], 0
        held.append(batch)
        size += batch.column("items").nbytes // 8
    if held:
        yield pa.Table.from_batches(held)


class _Sums:
    """Of the values of users, by run and segment; how many users there are; and what was wrong."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.found: dict[tuple[str | None, str], tuple[int, F64, F64]] = {}
        self.users: dict[str, int] = {}
        self.problems: dict[str, tuple[int, int]] = {}

    def add(self, label: str | None, segment: str, values: F64) -> None:
        nothing = 0, np.zeros(self.columns), np.zeros(self.columns)
        n, sums, squares = self.found.get((label, segment), nothing)
        self.found[label, segment] = n + len(values), sums + values.sum(axis=0), squares + (values**2).sum(axis=0)

    def add_users(self, segment: str, n: int) -> None:
        self.users[segment] = self.users.get(segment, 0) + n

    def problem(self, kind: str, n: int, user: int) -> None:
        before, first = self.problems.get(kind, (0, int(user)))
        self.problems[kind] = before + n, min(first, int(user))

    def batch(self) -> pa.RecordBatch:
        rows = [
            {"kind": "sums", "label": label, "segment": segment, "n": n, "sums": sums, "squares": squares}
            for (label, segment), (n, sums, squares) in self.found.items()
        ]
        rows += [{"kind": "users", "segment": segment, "n": n} for segment, n in self.users.items()]
        rows += [{"kind": kind, "segment": str(user), "n": n} for kind, (n, user) in self.problems.items()]
        numbers = pa.list_(pa.float64())
        texts = [(name, pa.string()) for name in ("kind", "label", "segment")]
        schema = pa.schema([*texts, ("n", pa.int64()), ("sums", numbers), ("squares", numbers)])
        return pa.RecordBatch.from_pylist(rows, schema)


_PROBLEMS = {
    "nan": "recommendations: found {n:,} scores that are null or NaN, expected numbers. Drop those rows, or mend the "
    "model.",
    "ranks": "recommendations: found {n:,} ranks that are not 1, 2, 3, ... of their user, expected one of each. Number "
    "them anew, or pass scores instead.",
    "repeats": "recommendations: found an item more than once in the list of a user, expected each once: it would "
    "count twice. Drop duplicates.",
    "relevance": "relevant: found {n:,} rows whose relevance is null, NaN or infinite, expected a finite number.",
}


def _tidy(found: list[Any], wanted: list[_Metric]) -> list[tuple[Any, ...]]:
    for kind, message in _PROBLEMS.items():
        if wrong := [row for row in found if row["kind"] == kind]:
            raise EvaluateError(message.format(n=sum(row["n"] for row in wrong)))
    users: dict[str, int] = {}
    for row in found:
        if row["kind"] == "users":
            users[row["segment"]] = users.get(row["segment"], 0) + row["n"]
    if not users.get(ALL):
        raise EvaluateError("relevant: found no user with a relevant item, expected some to measure on")
    parts: dict[tuple[str | None, str], list[Any]] = {}
    for row in found:
        if row["kind"] == "sums":
            parts.setdefault((row["label"], row["segment"]), []).append(row)
    labels: list[str | None] = sorted({label for label, _ in parts}, key=lambda label: label or "")
    rows: list[tuple[Any, ...]] = []
    for label in labels or [None]:
        for segment, n in sorted(users.items(), key=lambda each: (each[0] != ALL, each[0])):
            if not n:
                continue
            own = parts.get((label, segment), [])
            for at, (name, k) in enumerate(wanted):
                mean = math.fsum(part["sums"][at] for part in own) / n
                square = math.fsum(part["squares"][at] for part in own) / n
                error = math.sqrt(max(square - mean**2, 0.0) / (n - 1)) if n > 1 else math.nan
                rows.append((label, name, k, segment, mean, error, mean - _Z * error, mean + _Z * error, n))
    return rows
