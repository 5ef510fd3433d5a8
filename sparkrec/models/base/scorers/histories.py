"""The scorer of models of sequences: vectors of histories, and of items."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from safetensors.numpy import load
from typing_extensions import Self

from sparkrec.kernels.arrays import F32, Lists
from sparkrec.models.base.inputs import next_item_inputs
from sparkrec.models.base.recommender import Recommender, Sees, Sizes
from sparkrec.models.base.scorers.pairs import Scorer, array, read_metadata, tensor
from sparkrec.models.base.sequence_model import SequenceModel
from sparkrec.models.base.settings import NetworkSettings

HISTORIES = 1 << 10
"""Histories whose states are computed at a time."""
_EXTRA = "extra"


@dataclass(frozen=True)
class HistoryScorer(Scorer):
    """Scores are inner products of the state of a history and the output embedding of an item. `weights` have the rows
    of items that are none, such as the hidden event, as `extra`."""

    length: int = 1
    """Events of a history that the model can see."""

    sees: ClassVar[Sees] = "history"

    @classmethod
    def of(cls, settings: NetworkSettings, model: Recommender, codes: str = "") -> Self:
        plain, model = Scorer.of(settings, model), cast(SequenceModel, model)
        extra = model.items.weight[len(model.items.weight) - model.extra_items :]
        return cls(plain.settings, plain.weights | {_EXTRA: extra.cpu().numpy().copy()}, model.length)

    def metadata(self) -> dict[str, str]:
        return super().metadata() | {"length": str(self.length)}

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        metadata = read_metadata(data)
        return cls(json.loads(metadata["settings"]), load(data), int(metadata["length"]))

    @property
    def sizes(self) -> Sizes:
        return Sizes(length=self.length)

    @property
    def _model(self) -> SequenceModel:
        return cast(SequenceModel, self.module)

    def states(self, users: F32, histories: Lists, items: F32) -> F32:
        """(n, p) vectors of users, whose scores with `output_embeddings` say what comes after their histories.

        users      (n, d) their rows
        histories  of each user the places in `items` of what the user did, in the order of time; none is empty
        items      (m, q) rows of all items
        """
        model = self._model
        if len(model.items.weight) != len(items) + model.extra_items:
            model.items.weight = torch.from_numpy(np.concatenate((items, self.weights[_EXTRA])))
        model.users.weight = tensor(users)
        parts = []
        for first in range(0, len(users), HISTORIES):
            start = histories[0][first : first + HISTORIES + 1]
            inputs = next_item_inputs((start, histories[1]), type(model), self.length, len(items))
            rows = torch.arange(first, first + len(start) - 1)
            with torch.inference_mode():
                parts.append(model.query(rows, inputs.tensors(torch.device("cpu"))).numpy())
        return np.concatenate(parts)

    def output_embeddings(self, items: F32) -> F32:
        """(m, q) rows of items -> (m, p) vectors."""
        return array(self._model.output_embeddings(tensor(items)))

    @property
    def state_size(self) -> int:
        """Numbers in a vector that `states` and `output_embeddings` make."""
        return int(self.output_embeddings(self._model.items.weight[:0].numpy()).shape[1])
