"""Sums over users: those of one task, and the values of metrics that follow from those of all tasks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from scipy.stats import norm

from sparkrec.kernels.arrays import F64, I64
from sparkrec.kernels.metrics.statistics import normal_p
from sparkrec.spark.arrow.packed_rows import schema_of

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
KEY = ("kind", "run", "segment", "k", "part")
"""Columns of SCHEMA that tell what a row is about."""
SCHEMA = schema_of(
    kind=pa.string(),
    run=pa.string(),
    segment=pa.string(),
    k=pa.int32(),
    part=pa.int32(),
    n=pa.int64(),
    counts=pa.binary(),
    **dict.fromkeys(_ARRAYS, pa.list_(pa.float64())),
)
"""`kind` is "values" of a run; "difference" of a run and the baseline; "counts" of items; or a kind of faulty rows."""
_PART = 1 << 16
"""Most counts of items in a row."""
_CONFIDENCE = 0.95


class PartialTotals:
    """Sums over the users of one task, by kind, run and segment; and how many faulty rows it met."""

    def __init__(self) -> None:
        self.sums: dict[tuple[str, str | None, str], list[F64]] = {}
        self.counts: dict[tuple[str | None, str, int], tuple[I64, int]] = {}
        self.problems: dict[str, int] = {}

    def add(self, kind: str, run: str | None, segment: str, sums: F64, weights: F64, resampled: F64) -> None:
        """Add users: their (u, m) sums and weights, and (u, b) how often each is in a sample of the bootstrap."""
        defined = weights > 0
        above, below = defined & (sums > 0), defined & (sums < 0)
        terms = [sums, weights, sums**2, sums * weights, weights**2, defined, above, below]
        parts = [term.sum(axis=0).astype(np.float64) for term in terms]
        parts += [(resampled.T @ term).ravel() for term in (sums, weights)]
        before = self.sums.get((kind, run, segment))
        self.sums[kind, run, segment] = parts if before is None else [a + b for a, b in zip(before, parts, strict=True)]

    def count(self, run: str | None, segment: str, k: int, counts: I64, lists: int) -> None:
        """Add (m,) how often each item of the catalogue is in the first k of `lists` lists."""
        before, n = self.counts.get((run, segment, k), (0, 0))
        self.counts[run, segment, k] = before + counts, n + lists

    def problem(self, kind: str, n: int) -> None:
        """Count n faulty rows of a kind."""
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
            key = {"kind": "counts", "run": run, "segment": segment, "k": k}
            yield _batch([{**key, "part": -1, "n": n}])
            for part in range(0, len(counts), _PART):
                own = counts[part : part + _PART]
                if own.any():
                    yield _batch([{**key, "part": part // _PART, "counts": own.tobytes()}])


def _batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, SCHEMA)


@dataclass(frozen=True)
class AddItemCounts:
    """The task that adds up the counts of items of all tasks, as rows of SCHEMA.

    It takes all rows of a kind, run, segment, cutoff and part together. Of counts it returns how many items have each
    count: the counts as `sums`, numbers of items as `weights`. Other rows it returns as they are.
    """

    @property
    def schema(self) -> pa.Schema:
        return SCHEMA

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        totals: dict[tuple[Any, ...], I64] = {}
        for batch in batches:
            for row in batch.to_pylist():
                if row["counts"] is None:
                    yield _batch([row])
                    continue
                key = tuple(row[name] for name in KEY)
                totals[key] = totals.get(key, 0) + np.frombuffer(row["counts"], np.int64)
        for key, counts in totals.items():
            values, items = np.unique(counts[counts > 0], return_counts=True)
            yield _batch([{**dict(zip(KEY, key, strict=True)), "sums": values, "weights": items}])


class Estimate(NamedTuple):
    """A value over users, its standard error, and the ends of an interval of 95 % around it."""

    value: float
    error: float
    low: float
    high: float


class MetricTotals:
    """The values of metrics that follow from the sums of all tasks. A metric is named by its number, `metric`."""

    def __init__(self, rows: list[Any], replicates: int, squared: list[bool]) -> None:
        """Read rows of SCHEMA.

        replicates  samples of the bootstrap
        squared     of each metric, whether it is the root of a mean
        """
        self.replicates, self.squared = replicates, squared
        self.parts: dict[tuple[str, str | None, str | None], list[Any]] = {}
        for row in rows:
            self.parts.setdefault((row["kind"], row["run"], row["segment"]), []).append(row)
        self._sums: dict[tuple[str, str, str | None, str], F64] = {}

    def problem(self, kind: str) -> int:
        """How many faulty rows of a kind all tasks met."""
        return sum(row["n"] for row in self.parts.get((kind, None, None), []))

    def runs(self) -> list[str | None]:
        return sorted({run for kind, run, _ in self.parts if kind == "values"}, key=lambda run: run or "")

    def segments(self, first: str) -> list[str]:
        """The segments that have users, by name, but for one that comes first."""
        names = {
            segment for kind, run, segment in self.parts if segment and self._sum("users", kind, run, segment).any()
        }
        names |= {segment for kind, _, segment in self.parts if segment and kind == "counts"}
        return sorted(names, key=lambda segment: (segment != first, segment))

    def users(self, kind: str, run: str | None, segment: str, metric: int) -> int:
        """How many users a metric is defined for."""
        users = self._sum("users", kind, run, segment)
        return int(users[metric]) if len(users) else 0

    def effective(self, run: str | None, segment: str, metric: int) -> float:
        """How many users of equal weight would have the same variance (Kish 1965)."""
        weight, squared = (self._sum(name, "values", run, segment)[metric] for name in ("weights", "squared_weights"))
        return float(weight**2 / squared) if squared else 0.0

    def signs(self, run: str | None, segment: str, metric: int) -> tuple[int, int]:
        """How many users have a difference above 0, and how many below."""
        key = "difference", run, segment
        return int(self._sum("above", *key)[metric]), int(self._sum("below", *key)[metric])

    def estimate(self, kind: str, run: str | None, segment: str, metric: int) -> Estimate:
        """Value and error, users being drawn independently; of a ratio to first order (Cochran 1977, section 6.4)."""
        key = kind, run, segment
        total, weight, squares, cross, squared = (self._sum(name, *key)[metric] for name in _ARRAYS[:5])
        n = self.users(*key, metric)
        value = total / weight
        spread = max(squares - 2.0 * value * cross + value**2 * squared, 0.0)
        error = math.sqrt(spread * n / (n - 1)) / abs(weight) if n > 1 else math.nan
        if self.replicates:
            drawn = self._resampled(*key)[:, metric]
            low, high = np.nanquantile(drawn, [0.5 - _CONFIDENCE / 2, 0.5 + _CONFIDENCE / 2])
        else:
            reach = float(norm.ppf(0.5 + _CONFIDENCE / 2)) * error
            low, high = value - reach, value + reach
        if self.squared[metric]:
            value, low, high = (math.sqrt(max(mean, 0.0)) for mean in (value, low, high))
            error = error / (2.0 * value) if value else math.nan
        return Estimate(float(value), float(error), float(low), float(high))

    def p_value(self, run: str | None, segment: str, metric: int) -> float:
        """The two-sided chance of such a difference, or a larger one, if it were 0."""
        mean, error, _, _ = self.estimate("difference", run, segment, metric)
        if self.replicates:
            means = self._resampled("difference", run, segment)[:, metric]
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
        """(b, m) values in each sample of the bootstrap; NaN where none of its users has one."""
        sums, weights = (
            self._sum(name, kind, run, segment).reshape(self.replicates, -1) for name in ("resampled", "reweighed")
        )
        return np.asarray(np.divide(sums, weights, out=np.full(sums.shape, np.nan), where=weights != 0), np.float64)

    def _sum(self, name: str, kind: str, run: str | None, segment: str) -> F64:
        """Exact, so that the order of the tasks does not matter."""
        key = name, kind, run, segment
        if key not in self._sums:
            own = [row[name] for row in self.parts.get((kind, run, segment), []) if row[name] is not None]
            self._sums[key] = np.array([math.fsum(column) for column in zip(*own, strict=True)])
        return self._sums[key]
