"""Sums over users that tasks find, and what follows from the sums of all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType
from scipy.stats import norm

from sparkrec.kernels.arrays import F64, I64
from sparkrec.kernels.metrics.statistics import normal_p

_ARRAYS = (
    "sums",
    "weights",
    "squares",
    "cross",
    "squared_weights",
    "users",
    "above",
    "below",
    "resampled",
    "reweighed",
)
SCHEMA = "kind string, run string, segment string, k int, part int, n long, counts binary, " + ", ".join(
    f"{name} array<double>" for name in _ARRAYS
)
"""`kind`: values of a run; difference of one and the baseline; counts of items; or something that is wrong."""
_PART = 1 << 16
"""Counts of items in a row."""
_CONFIDENCE = 0.95


class Totals:
    """Of the users of a task, by kind, run and segment; and what was wrong with them."""

    def __init__(self) -> None:
        self.sums: dict[tuple[str, str | None, str], list[F64]] = {}
        self.counts: dict[tuple[str | None, str, int], tuple[I64, int]] = {}
        self.problems: dict[str, int] = {}

    def add(self, kind: str, run: str | None, segment: str, sums: F64, weights: F64, resampled: F64) -> None:
        """(u, m) sums and weights of users, and (u, b) how often each is in a sample of the bootstrap."""
        there = weights > 0
        terms = [sums, weights, sums**2, sums * weights, weights**2, there, there & (sums > 0), there & (sums < 0)]
        parts = [each.sum(axis=0).astype(np.float64) for each in terms]
        parts += [(resampled.T @ each).ravel() for each in (sums, weights)]
        before = self.sums.get((kind, run, segment))
        self.sums[kind, run, segment] = parts if before is None else [a + b for a, b in zip(before, parts, strict=True)]

    def count(self, run: str | None, segment: str, k: int, counts: I64, lists: int) -> None:
        """(m,) how often each item of the catalogue is in the first k of so many lists."""
        before, n = self.counts.get((run, segment, k), (0, 0))
        self.counts[run, segment, k] = before + counts, n + lists

    def problem(self, kind: str, n: int) -> None:
        self.problems[kind] = self.problems.get(kind, 0) + n

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Rows of SCHEMA."""
        rows: list[dict[str, Any]] = [
            {"kind": kind, "run": run, "segment": segment, **dict(zip(_ARRAYS, parts, strict=True))}
            for (kind, run, segment), parts in self.sums.items()
        ]
        rows += [{"kind": kind, "n": n} for kind, n in self.problems.items()]
        yield _batch(rows)
        for (run, segment, k), (counts, n) in self.counts.items():
            about = {"kind": "counts", "run": run, "segment": segment, "k": k}
            yield _batch([{**about, "part": -1, "n": n}])
            for part in range(0, len(counts), _PART):
                own = counts[part : part + _PART]
                if own.any():
                    yield _batch([{**about, "part": part // _PART, "counts": own.tobytes()}])


def _batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    texts = [(name, pa.string()) for name in ("kind", "run", "segment")]
    numbers = [("k", pa.int32()), ("part", pa.int32()), ("n", pa.int64()), ("counts", pa.binary())]
    arrays = [(name, pa.list_(pa.float64())) for name in _ARRAYS]
    return pa.RecordBatch.from_pylist(rows, pa.schema([*texts, *numbers, *arrays]))


def together(rows: DataFrame) -> list[Any]:
    """Rows of all tasks, in which counts of items are added up where they are, and come as how many items have a count:
    `sums` the counts, `weights` how many."""

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        found: dict[tuple[Any, ...], I64] = {}
        for batch in batches:
            for row in batch.to_pylist():
                if row["counts"] is None:
                    yield _batch([row])
                    continue
                key = tuple(row[name] for name in ("kind", "run", "segment", "k", "part"))
                found[key] = found.get(key, 0) + np.frombuffer(row["counts"], np.int64)
        for key, counts in found.items():
            values, items = np.unique(counts[counts > 0], return_counts=True)
            about = dict(zip(("kind", "run", "segment", "k", "part"), key, strict=True))
            yield _batch([{**about, "sums": values, "weights": items}])

    return rows.repartition("kind", "run", "segment", "k", "part").mapInArrow(work, SCHEMA).collect()


def tidy(spark: SparkSession, rows: list[tuple[Any, ...]], columns: str) -> DataFrame:
    """Through Arrow: rows of Python objects take a job of their own."""
    schema = to_arrow_schema(cast(StructType, StructType.fromDDL(columns)))
    return spark.createDataFrame(
        pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema)
    )


class Estimate(NamedTuple):
    """A value over users, its standard error, and the ends of an interval of 95 % around it."""

    value: float
    error: float
    low: float
    high: float


class Found:
    """The totals of all tasks. `squared`: which metrics are roots of a mean."""

    def __init__(self, rows: list[Any], replicates: int, squared: list[bool]) -> None:
        self.replicates, self.squared = replicates, squared
        self.parts: dict[tuple[str, str | None, str | None], list[Any]] = {}
        for row in rows:
            self.parts.setdefault((row["kind"], row["run"], row["segment"]), []).append(row)
        self._sums: dict[tuple[str, str, str | None, str], F64] = {}

    def problem(self, kind: str) -> int:
        return sum(row["n"] for row in self.parts.get((kind, None, None), []))

    def runs(self) -> list[str | None]:
        return sorted({run for kind, run, _ in self.parts if kind == "values"}, key=lambda run: run or "")

    def segments(self, first: str) -> list[str]:
        """Those that have users, in order of their names but for the first."""
        there = {
            segment for kind, run, segment in self.parts if segment and self._sum("users", kind, run, segment).any()
        }
        there |= {segment for kind, _, segment in self.parts if segment and kind == "counts"}
        return sorted(there, key=lambda segment: (segment != first, segment))

    def users(self, kind: str, run: str | None, segment: str, at: int) -> int:
        """Of which a metric is defined."""
        users = self._sum("users", kind, run, segment)
        return int(users[at]) if len(users) else 0

    def effective(self, run: str | None, segment: str, at: int) -> float:
        """As many users of equal weight would have the same variance (Kish 1965)."""
        weight, squared = (self._sum(name, "values", run, segment)[at] for name in ("weights", "squared_weights"))
        return float(weight**2 / squared) if squared else 0.0

    def signs(self, run: str | None, segment: str, at: int) -> tuple[int, int]:
        """Users whose difference is above and below 0."""
        of = "difference", run, segment
        return int(self._sum("above", *of)[at]), int(self._sum("below", *of)[at])

    def estimate(self, kind: str, run: str | None, segment: str, at: int) -> Estimate:
        """Of users who are drawn independently; of a ratio to first order (Cochran 1977, section 6.4)."""
        of = kind, run, segment
        total, weight, squares, cross, squared = (self._sum(name, *of)[at] for name in _ARRAYS[:5])
        n = self.users(*of, at)
        value = total / weight
        spread = max(squares - 2.0 * value * cross + value**2 * squared, 0.0)
        error = math.sqrt(spread * n / (n - 1)) / abs(weight) if n > 1 else math.nan
        if self.replicates:
            drawn = self._resampled(*of)[:, at]
            low, high = np.nanquantile(drawn, [0.5 - _CONFIDENCE / 2, 0.5 + _CONFIDENCE / 2])
        else:
            reach = float(norm.ppf(0.5 + _CONFIDENCE / 2)) * error
            low, high = value - reach, value + reach
        if self.squared[at]:
            value, low, high = (math.sqrt(max(each, 0.0)) for each in (value, low, high))
            error = error / (2.0 * value) if value else math.nan
        return Estimate(float(value), float(error), float(low), float(high))

    def p_value(self, run: str | None, segment: str, at: int) -> float:
        """Of a difference of 0, two-sided."""
        mean, error, _, _ = self.estimate("difference", run, segment, at)
        if self.replicates:
            means = self._resampled("difference", run, segment)[:, at]
            other = min((means <= 0).mean(), (means >= 0).mean())
            return float(min(max(2.0 * other, 1.0 / self.replicates), 1.0))
        return normal_p(mean, error)

    def item_counts(self, run: str | None, segment: str, k: int) -> tuple[I64, int]:
        """Counts of the items that are in the first k of any list, and the number of lists."""
        rows = [row for row in self.parts.get(("counts", run, segment), []) if row["k"] == k]
        own = [np.repeat(row["sums"], np.array(row["weights"], np.int64)) for row in rows if row["sums"] is not None]
        lists = sum(row["n"] for row in rows if row["part"] == -1)
        return np.concatenate([*own, np.zeros(0)]).astype(np.int64), lists

    def _resampled(self, kind: str, run: str | None, segment: str) -> F64:
        """(b, m) values in each sample; NaN where none of a sample's users has one."""
        sums, weights = (
            self._sum(name, kind, run, segment).reshape(self.replicates, -1) for name in ("resampled", "reweighed")
        )
        return np.asarray(np.divide(sums, weights, out=np.full(sums.shape, np.nan), where=weights != 0), np.float64)

    def _sum(self, name: str, kind: str, run: str | None, segment: str) -> F64:
        """Exact, so that the order of the tasks is nothing."""
        key = name, kind, run, segment
        if key not in self._sums:
            own = [row[name] for row in self.parts.get((kind, run, segment), []) if row[name] is not None]
            self._sums[key] = np.array([math.fsum(column) for column in zip(*own, strict=True)])
        return self._sums[key]
