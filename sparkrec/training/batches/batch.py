"""A process's part of a step, and of consecutive steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparkrec.fields import SparseFeatures
from sparkrec.kernels.arrays import F32, F64, I32, I64
from sparkrec.kernels.gradients.contexts import Contexts
from sparkrec.kernels.gradients.pairs import Pairs, Steps, of_step
from sparkrec.models.base.inputs import HistoryArrays


@dataclass(frozen=True)
class Batch:
    """This process's part of a step."""

    users: I64
    """(b,) rows of the user table of this process."""
    items: I32
    """(b, 1 + n): a positive and its negatives."""
    values: F32
    confidence: F32
    user_positives: I64
    """(b,) positives of each one's user."""
    total: int
    """Positives in the step, of all processes."""
    false_negatives: NDArray[np.bool_] | None = None
    """(b, b) where the positive of a column is no negative of a row, its own among them."""
    log_expected: F64 | None = None
    """(b, 1 + n) or (b, b) log of the number of times that the item of a column is drawn for a row, in the mean; that
    of the positive itself is not read. For softmax."""
    pairs: Pairs | None = None
    """The same for kernels, where they were asked for."""
    entries: SparseFeatures | None = None
    """(b,) what is known of who asks, where there are features."""
    timestamps: I64 | None = None
    """(b,) of each example, where there are features."""
    shown: HistoryArrays | None = None
    """Histories, of batches of sequences; the rows are questions about them."""
    contexts: Contexts | None = None
    """Events and those around them, for the kernel, of batches of contexts; the rows are events."""
    start: I64 | None = None
    """(u + 1,) where the positives of each user begin, of batches of users with their whole rows."""

    @property
    def queries(self) -> tuple[I64, I64 | None]:
        """Rows of the user table that are asked for, and (b,) by which of them each positive is; None: one each."""
        if self.start is None:
            return self.users, None
        return self.users[self.start[:-1]], np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))

    def parts(self, n: int) -> Iterator[Batch]:
        """It in n parts, whose losses add up; whole where its positives are one another's negatives."""
        if n == 1 or self.false_negatives is not None:
            yield self
            return
        for at in np.array_split(np.arange(len(self.users)), n):
            yield replace(
                self,
                users=self.users[at],
                items=self.items[at],
                values=self.values[at],
                confidence=self.confidence[at],
                user_positives=self.user_positives[at],
                log_expected=None if self.log_expected is None else self.log_expected[at],
                entries=self.entries and self.entries.take(at),
                timestamps=None if self.timestamps is None else self.timestamps[at],
            )


@dataclass(frozen=True)
class StepGroup:
    """This process's part of consecutive steps."""

    columns: list[NDArray[Any]]
    """Users, items, values, confidence and user_positives of their batches, one after the other; and where there are
    features, their timestamps and which of `entries` is of each."""
    starts: I64
    """(s + 1,) where each begins."""
    totals: list[int]
    """Positives of all processes in each."""
    false_negatives: list[NDArray[np.bool_] | None]
    """Of each batch."""
    log_expected: list[F64 | None]
    """Of each batch."""
    steps: Steps | None
    """The same for kernels, where they were asked for."""
    entries: SparseFeatures | None = None
    """Of all examples of the group."""

    def batches(self) -> Iterator[Batch]:
        for at, total in enumerate(self.totals):
            of_this = slice(self.starts[at], self.starts[at + 1])
            users, items, values, confidence, user_positives, *known = (each[of_this] for each in self.columns)
            pairs = of_step(self.steps, at) if self.steps else None
            drawn = self.false_negatives[at], self.log_expected[at]
            batch = Batch(users, items, values, confidence, user_positives, total, *drawn, pairs)
            if self.entries is not None:
                batch = replace(batch, timestamps=known[0], entries=self.entries.take(known[1]))
            yield batch
