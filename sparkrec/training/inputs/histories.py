"""What a model of sequences takes of a batch: histories."""

from __future__ import annotations

from typing import cast

import numpy as np
from torch import Tensor

from sparkrec.kernels.arrays import I64
from sparkrec.models.base.inputs import next_item_inputs
from sparkrec.models.base.recommender import Features, Recommender
from sparkrec.models.base.sequence_model import SequenceModel
from sparkrec.shards import Shard, Shards
from sparkrec.training.batches.batch import Batch
from sparkrec.training.inputs.ids import InputReader


class HistoryReader(InputReader):
    """Hands over the histories that a batch of sequences comes with."""

    def features_of(self, batch: Batch, items: Tensor) -> Features | None:
        return Features(batch.shown.tensors(self.device), None) if batch.shown else None

    def of_users(self, model: Recommender, held_out: Shards, shard: Shard, part: I64) -> Features:
        """What the users did before what is held out."""
        assert shard.sequences is not None
        histories = shard.sequences.take(np.searchsorted(shard.sequences.rows, part))
        kind = type(cast(SequenceModel, model))
        inputs = next_item_inputs((histories.start, histories.items), kind, held_out.length, held_out.n_items)
        return Features(inputs.tensors(self.device), None)

    def rows_of_positive(self, negatives: int) -> int:
        return 2 + negatives
