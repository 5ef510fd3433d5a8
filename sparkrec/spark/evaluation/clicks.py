"""Metrics of predicted clicks, of all rows of a split and of segments of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame

from sparkrec.kernels.arrays import F64
from sparkrec.kernels.metrics.clicks import auc, calibration, grouped_auc, log_loss, reliability
from sparkrec.spark.evaluation.segments import GROUPS, SIDES, members
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.platform.few import narrowed

METRICS = {
    "click_auc": auc,
    "log_loss": log_loss,
    "calibration_error": calibration,
}
"""name -> metric(scores, clicked); `kernels.metrics.clicks` says what they are."""


class Clicks:
    """Rows of a split on the driver: 24 bytes each."""

    def __init__(self, rows: DataFrame) -> None:
        """rows: user, value, score, user_group, item_group. A row whose value is above 0 is a click; without a score it
        has the mean of the others."""
        names = ("user", "value", "score", *GROUPS)
        table = carry_out("clicks", lambda rows: rows.select(*names).table(), narrowed(rows, *names))
        self.user = table["user"].to_numpy()
        self.clicked = table["value"].to_numpy() > 0
        score: F64 = table["score"].cast(pa.float64()).combine_chunks().fill_null(float("nan")).to_numpy()
        self.score = np.where(np.isnan(score), np.nanmean(score) if np.isfinite(score).any() else 0.0, score)
        self._groups = {side: table[f"{side}_group"].to_numpy() for side in SIDES}

    def metrics(self, n_groups: int) -> Iterator[tuple[str, str, float, int]]:
        """Segment, metric, value and users of it; of `n_groups` groups of users, and of items."""
        for segment, rows in members(self._groups, n_groups):
            users, score, clicked = self.user[rows], self.score[rows], self.clicked[rows]
            n = len(np.unique(users))
            for name, metric in METRICS.items():
                yield segment, name, metric(score, clicked), n
            yield segment, "grouped_click_auc", grouped_auc(score, clicked, users), n

    def calibration(self) -> pa.Table:
        """The calibration plot: rows, mean prediction and share of clicks of each bucket."""
        rows, expected, found = reliability(self.score, self.clicked)
        return pa.table({"rows": rows, "predicted": expected, "clicked": found})
