"""Bidirectional self-attention over a history with hidden events."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sparkrec.config.model import Declaration
from sparkrec.models.base.recommender import Sizes
from sparkrec.models.base.sequence_model import History, SequenceModel, by_length
from sparkrec.models.base.settings import AttentionSettings
from sparkrec.models.sasrec import Block


class Bert4recSettings(AttentionSettings):
    """Events that are hidden are predicted from those before and after them (Sun et al. 2019)."""

    kind: Literal["bert4rec"] = "bert4rec"
    masked: float = Field(0.2, gt=0, lt=1)
    """Share of the events of a sequence that are hidden; at least one."""


class BERT4Rec(SequenceModel):
    """Sun et al. 2019: events that are hidden are predicted from all others; to predict what comes next, a hidden event
    is put at the end. Rows of items are (embedding, bias); the last one is that of what is hidden."""

    asks = "masked"
    extra_items = 1

    def __init__(self, settings: Bert4recSettings, sizes: Sizes) -> None:
        super().__init__(sizes.users, 0, sizes.items + 1, settings.dim + 1)
        self.dim, self.length, self.masked = settings.dim, sizes.length, settings.masked
        self.position = nn.Parameter(torch.zeros(sizes.length, settings.dim))
        self.norm, self.drop = nn.LayerNorm(settings.dim), nn.Dropout(settings.dropout)
        shape = settings.dim, settings.heads, settings.dropout, 4 * settings.dim, nn.GELU
        self.blocks = nn.ModuleList([Block(*shape) for _ in range(settings.blocks)])
        self.out = nn.Sequential(nn.Linear(settings.dim, settings.dim), nn.GELU(), nn.LayerNorm(settings.dim))

    def states(self, users: Tensor, history: History) -> Tensor:
        rows: Tensor = self.items(history.items)[..., : self.dim]
        from_end = history.start[1:][history.of] - torch.arange(len(rows), device=rows.device)
        x = self.drop(self.norm(rows + self.position[self.length - from_end]))
        rectangles = by_length(history)
        for block in self.blocks:
            x = block(x, rectangles, causal=False)
        found: Tensor = self.out(x[history.at])
        return torch.cat((found, found.new_ones(len(found), 1)), 1)


MODEL = Declaration(
    settings=Bert4recSettings,
    feedback=("implicit",),
    module=BERT4Rec,
)
