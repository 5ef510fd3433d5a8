"""A recurrent network over a history."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from sparkrec.config.model import Declaration
from sparkrec.models.base.recommender import Sizes
from sparkrec.models.base.sequence_model import History, SequenceModel, by_length, packed
from sparkrec.models.base.settings import DropoutSettings


class Gru4recSettings(DropoutSettings):
    """Gated recurrent units over the history (Hidasi et al. 2016)."""

    kind: Literal["gru4rec"] = "gru4rec"
    hidden: int = Field(64, ge=1)
    """Of the recurrent state."""
    layers: int = Field(1, ge=1)
    """Recurrent layers."""


class GRU4Rec(SequenceModel):
    """Hidasi et al. 2016: gated recurrent units on the embeddings of events; what comes next is the item whose
    embedding is most like the state."""

    def __init__(self, settings: Gru4recSettings, sizes: Sizes) -> None:
        super().__init__(sizes.users, 0, sizes.items, settings.dim)
        self.length, self.drop = sizes.length, nn.Dropout(settings.dropout)
        self.recurrent = nn.GRU(settings.dim, settings.hidden, settings.layers, batch_first=True)
        self.out = nn.Linear(settings.hidden, settings.dim)

    def states(self, users: Tensor, history: History) -> Tensor:
        rows: Tensor = self.drop(self.items(history.items))
        rectangles = by_length(history)
        # What is not real comes last, where it changes nothing before it.
        parts = [self.recurrent(rows[each.places])[0] for each in rectangles]
        found: Tensor = self.out(packed(parts, rectangles, len(rows))[history.at])
        return found


MODEL = Declaration(
    settings=Gru4recSettings,
    feedback=("implicit",),
    module=GRU4Rec,
)
