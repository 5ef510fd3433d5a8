"""What a fit is given."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame

from sparkrec.config import Parent, SequenceSettings
from sparkrec.models.base.published import WarmStart
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.data.sequences import sequences


@dataclass(frozen=True)
class FitInputs:
    """All that a model is fitted to, beside its settings."""

    dataset: Dataset
    observed: DataFrame
    """(user, item, value, confidence, timestamp), and where the dataset has features (rows, weights): what to fit."""
    seed: int
    scratch: str
    """Folder for what the fit keeps on the way: with the same one, a fit resumes from there."""
    parents: tuple[Parent, ...] = ()
    prepared_sequences: DataFrame | None = None
    """Those of `observed` that the dataset has; None: they are cut when they are asked for."""
    warm_start: WarmStart | None = None

    def sequences(self, cut: SequenceSettings) -> DataFrame:
        """The sequences of `observed`, columns as `tables.SEQUENCES`.

        cut  how the dataset cuts them
        """
        return sequences(self.observed, cut) if self.prepared_sequences is None else self.prepared_sequences
