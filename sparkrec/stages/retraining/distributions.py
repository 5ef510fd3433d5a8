"""How values are distributed, and how far that has moved: plans over rows, wherever these are.

What comes back to the driver is how often there is what, in whole numbers, so that a result is the same to the bit
however the rows are divided.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import rel_entr

from sparkrec.kernels.arrays import F64, I64
from sparkrec.spark.arrow.packed_rows import schema_of
from sparkrec.spark.data.part_counts import micros
from sparkrec.spark.runner import Rows

Counts: TypeAlias = tuple[F64, I64]
"""Values, ascending, and how often there is each."""

_STEPS = 1 << 10
_VALUES = 20
"""So many different values are looked at one by one; more of them by deciles."""
_COUNTS = schema_of(value=pa.float64(), n=pa.int64())
_ZERO = pa.scalar(0, pa.int64())


@dataclass(frozen=True)
class Later:
    """(value): a column of the rows with a later `timestamp`.

    after   microseconds since 1970; None: all rows
    """

    column: str
    kind: pa.DataType
    after: int | None

    @property
    def schema(self) -> pa.Schema:
        return schema_of(value=self.kind)

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            values = batch.column(self.column)
            if self.after is not None:
                values = values.filter(pc.greater(micros(batch.column("timestamp")), self.after))
            yield pa.RecordBatch.from_arrays([values], schema=self.schema)


@dataclass(frozen=True)
class Rounded:
    """(value, n) of rows (value, n), numbers and how often there is each, rounded to ten binary digits, a tenth of a
    percent; whole ones up to 1024 as they are, NaN and infinities left out. Each once a call."""

    schema: pa.Schema = _COUNTS

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        found: Counts = np.zeros(0), np.zeros(0, np.int64)
        for batch in batches:
            values = batch.column("value").cast(pa.float64()).to_numpy(zero_copy_only=False)
            finite = np.isfinite(values)
            part, exponent = np.frexp(values[finite])
            rounded = np.ldexp(np.rint(part * _STEPS) / _STEPS, exponent)
            found = _merged([found, (rounded, batch.column("n").to_numpy()[finite])])
        yield pa.RecordBatch.from_arrays([*map(pa.array, found)], schema=self.schema)


def _merged(counts: Sequence[Counts]) -> Counts:
    values, places = np.unique(np.concatenate([each[0] for each in counts]), return_inverse=True)
    times = np.zeros(len(values), np.int64)
    np.add.at(times, places, np.concatenate([each[1] for each in counts]))
    return values, times


def histogram(rows: Rows, column: str) -> Counts:
    """The different numbers of a column, `Rounded`, ascending, and how often there is each."""
    found = rows.select(value=column).where_present("value").counted("value").map_rows(Rounded()).table()
    return _merged([(found["value"].to_numpy(), found["n"].to_numpy())])


def quantiles(values: F64, times: I64, shares: Sequence[float]) -> F64:
    """Of a histogram: values that so many shares of all are no greater than; none where it has none."""
    until = np.cumsum(times)
    if not len(until):
        return values
    found: F64 = values[np.searchsorted(until, np.array(shares) * until[-1])]
    return found


def moved(old: Counts, new: Counts) -> float | None:
    """The divergence of two histograms, by the values of the old one if these are few, else by its deciles; None where
    one of them has nothing."""
    edges = old[0]
    if len(edges) > _VALUES:
        edges = np.unique(quantiles(*old, [n / 10 for n in range(1, 10)]))
    counts = []
    for values, times in (old, new):
        # An edge is a cell, as is what lies between two.
        cells = np.searchsorted(edges, values) + np.searchsorted(edges, values, side="right")
        counts.append(np.bincount(cells, weights=times, minlength=2 * len(edges) + 1))
    return jensen_shannon(*counts)


def divergence(old: Rows, new: Rows, key: str, count: str) -> float | None:
    """How far shares have moved: `jensen_shannon` of rows (key, count), the key once in each."""
    both = old.select(key, old=count).union(new.select(key, new=count)).greatest(key)
    pairs = both.coalesced(old=_ZERO, new=_ZERO).counted("old", "new").table()
    pairs = pairs.sort_by([("old", "ascending"), ("new", "ascending")])
    return jensen_shannon(*(pairs[name].to_numpy() for name in ("old", "new", "n")))


def jensen_shannon(old: F64 | I64, new: F64 | I64, times: I64 | int = 1) -> float | None:
    """The divergence of Jensen and Shannon, in bits, from 0 to 1: the mean of what each of two distributions says of
    the mean of both (Lin 1991).

    old, new  how often there is what
    times     how many things there are of each such pair
    None where one of them has nothing.
    """
    if not (old.any() and new.any()):
        return None
    p, q = old / (old * times).sum(), new / (new * times).sum()
    middle = (p + q) / 2
    return float(((rel_entr(p, middle) + rel_entr(q, middle)) * times).sum() / np.log(4))


def overlap(old: Rows, new: Rows, user: str, item: str) -> float:
    """Share of the items of old lists (user, item) that are in the new ones, of users who have both; 1 where nobody
    has."""
    both = old.select(user, item).only(new, user)
    shared = both.joined(new.select(user, item).distinct(), user, item).counted(user)
    of_users = both.counted(user).joined(shared.named(user, "shared"), user, every=True).coalesced(shared=_ZERO)
    pairs = of_users.counted("shared", "n").named("shared", "n", "times").table()
    shares, times = pairs["shared"].to_numpy() / pairs["n"].to_numpy(), pairs["times"].to_numpy()
    order = np.lexsort((times, shares))
    return float((shares * times)[order].sum() / times.sum()) if len(times) else 1.0
