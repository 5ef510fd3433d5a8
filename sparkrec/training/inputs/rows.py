"""What a model of whole rows takes of a batch: what its users have."""

from __future__ import annotations

import torch
from torch import Tensor

from sparkrec.models.base.graph import Rows
from sparkrec.models.base.recommender import Features
from sparkrec.training.batches.batch import Batch
from sparkrec.training.inputs.ids import InputReader


class RowReader(InputReader):
    """Hands over the rows of a batch of users: its positives. Who is measured is read from the computed table."""

    def features_of(self, batch: Batch, items: Tensor) -> Features:
        assert batch.start is not None
        columns = batch.items[:, 0].astype("int64"), batch.values, batch.confidence, batch.start
        return Features(Rows(*(torch.from_numpy(each).to(self.device) for each in columns)), None)

    def rows_of_positive(self, negatives: int) -> int:
        return 2 + negatives
