"""What makes rows of users from all that they have, where a trained model does so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from typing_extensions import Self

from sparkrec.kernels.arrays import F32, I64
from sparkrec.models.base.graph import Rows
from sparkrec.models.base.recommender import Recommender, Sees, Sizes
from sparkrec.models.base.row_model import RowModel
from sparkrec.models.base.scorers.pairs import Scorer, array, zero_padded
from sparkrec.models.base.settings import NetworkSettings

_ITEMS = "items.weight"


@dataclass(frozen=True)
class RowEncoder(Scorer):
    """Rows of users as their model publishes them. `weights` have the rows of all items, which stand in the model's
    table of items only as far as they are answers."""

    sees: ClassVar[Sees] = "rows"

    @classmethod
    def of(cls, settings: NetworkSettings, model: Recommender, codes: str = "") -> Self:
        plain = Scorer.of(settings, model)
        return cls(plain.settings, plain.weights | {_ITEMS: model.items.weight.cpu().numpy().copy()})

    @property
    def sizes(self) -> Sizes:
        return Sizes(items=len(self.weights[_ITEMS]))

    def encode(self, start: I64, items: I64, values: F32, confidence: F32) -> F32:
        """(u, p) rows of users who have the items `start[r]` to `start[r + 1]`, places among those of the model. What a
        model learned of the users that it was fitted to, beside what they have, is zero here."""
        model = cast(RowModel, self.module)
        rows = Rows(
            *(torch.from_numpy(np.require(each, requirements="W")) for each in (items, values, confidence, start))
        )
        with torch.inference_mode():
            x = model.states(torch.zeros(len(start) - 1, model.users.weight.shape[1]), rows)
            vectors = model.vectors(x, model.items.weight[:0])
        return zero_padded(array(x), model.items.weight.shape[1]) if vectors is None else array(vectors[0])
