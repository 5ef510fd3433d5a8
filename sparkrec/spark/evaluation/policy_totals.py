"""The task that sums up logged events for the estimators of `kernels.metrics.off_policy`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sparkrec.kernels.arrays import F64
from sparkrec.kernels.metrics.off_policy import doubly_robust, ips, snips
from sparkrec.spark.evaluation.totals import SCHEMA, PartialTotals

EVENT_COLUMNS = ("reward", "propensity", "probability")
REWARD_MODEL = ("predicted", "expected")
"""Columns of events for which a model of rewards is known."""
ESTIMATORS = ("ips", "snips", "doubly_robust")
"""In the order of their sums; the last one needs a model of rewards."""
OUT_OF_RANGE = "range"
"""The kind of faulty events."""


@dataclass(frozen=True)
class PolicyTotals:
    """Sums up events (run, EVENT_COLUMNS, REWARD_MODEL), a policy to a run, into rows of `totals.SCHEMA`."""

    has_reward_model: bool
    max_weight: float | None
    """Larger weights are cut to it; None: none is."""

    @property
    def schema(self) -> pa.Schema:
        return SCHEMA

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        totals = PartialTotals()
        names = (*EVENT_COLUMNS, *REWARD_MODEL) if self.has_reward_model else EVENT_COLUMNS
        for batch in batches:
            runs = batch.column("run").to_numpy(zero_copy_only=False)
            columns = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in names}
            if faulty := int((~_in_range(columns)).sum()):
                totals.problem(OUT_OF_RANGE, faulty)
                continue
            most = np.inf if self.max_weight is None else self.max_weight
            weight = np.minimum(columns["probability"] / columns["propensity"], most)
            estimators = [ips(weight, columns["reward"]), snips(weight, columns["reward"])]
            if self.has_reward_model:
                estimators.append(doubly_robust(weight, columns["reward"], columns["predicted"], columns["expected"]))
            sums, weights = (np.stack(parts, axis=1) for parts in zip(*estimators, strict=True))
            for run in np.unique(runs):
                own = runs == run
                totals.add("values", run, "all", sums[own], weights[own], np.zeros((int(own.sum()), 0)))
        yield from totals.batches()


def _in_range(columns: dict[str, F64]) -> NDArray[np.bool_]:
    """(n,) whether the numbers of an event are what they can be."""
    finite = np.all([np.isfinite(values) for values in columns.values()], axis=0)
    propensity, probability = columns["propensity"], columns["probability"]
    return np.asarray(finite & (propensity > 0) & (propensity <= 1) & (probability >= 0) & (probability <= 1))
