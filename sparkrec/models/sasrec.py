"""Self-attention over a history."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparkrec.config.model import Declaration
from sparkrec.models.base.recommender import Sizes
from sparkrec.models.base.sequence_model import History, Padded, SequenceModel, by_length, packed
from sparkrec.models.base.settings import AttentionSettings


class SasrecSettings(AttentionSettings):
    """Self-attention over the history (Kang and McAuley 2018)."""

    kind: Literal["sasrec"] = "sasrec"


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2) among the events of a history."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, asking: Tensor, known: Tensor, rectangles: list[Padded], causal: bool) -> Tensor:
        """(e, d), the same events as they ask and as they are known -> (e, d).

        causal  an event sees none that come after it
        """
        q, k, v = self.query(asking), self.key(known), self.value(known)
        parts = []
        for each in rectangles:
            a, b, c = (values[each.places].unflatten(-1, (self.heads, -1)).transpose(1, 2) for values in (q, k, v))
            mask = None if causal else each.real[:, None, None]  # what is not real comes last
            dropout = self.dropout if self.training else 0.0
            seen = F.scaled_dot_product_attention(a, b, c, attn_mask=mask, dropout_p=dropout, is_causal=causal)
            parts.append(seen.transpose(1, 2).flatten(-2))
        found: Tensor = self.out(packed(parts, rectangles, len(asking)))
        return found


class Block(nn.Module):
    """Attention, then two layers for each event by itself, with residuals around both (Kang and McAuley 2018, 3.2)."""

    def __init__(self, dim: int, heads: int, dropout: float, inner: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.before_attention, self.before_layers = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, dropout)
        drop = nn.Dropout(dropout)
        self.layers = nn.Sequential(nn.Linear(dim, inner), activation(), drop, nn.Linear(inner, dim))
        self.drop = drop

    def forward(self, x: Tensor, rectangles: list[Padded], causal: bool) -> Tensor:
        asking = self.before_attention(x)
        x = x + self.drop(self.attention(asking, asking, rectangles, causal))
        found: Tensor = x + self.drop(self.layers(self.before_layers(x)))
        return found


class SASRec(SequenceModel):
    """Kang and McAuley 2018: blocks of causal self-attention on item and position, then a norm; what comes next is the
    item whose embedding is most like the last event's state. Positions count from the end of what a model can see, so
    that the last event is always at the same one."""

    def __init__(self, settings: SasrecSettings, sizes: Sizes) -> None:
        super().__init__(sizes.users, 0, sizes.items, settings.dim)
        self.dim, self.length = settings.dim, sizes.length
        self.position = nn.Parameter(torch.zeros(sizes.length, settings.dim))
        self.drop = nn.Dropout(settings.dropout)
        shape = settings.dim, settings.heads, settings.dropout, settings.dim, nn.ReLU
        self.blocks = nn.ModuleList([Block(*shape) for _ in range(settings.blocks)])
        self.norm = nn.LayerNorm(settings.dim)

    def states(self, users: Tensor, history: History) -> Tensor:
        rows: Tensor = self.items(history.items)
        from_end = history.start[1:][history.of] - torch.arange(len(rows), device=rows.device)
        x = self.drop(rows * self.dim**0.5 + self.position[self.length - from_end])
        rectangles = by_length(history)
        for block in self.blocks:
            x = block(x, rectangles, causal=True)
        found: Tensor = self.norm(x)[history.at]
        return found


MODEL = Declaration(
    settings=SasrecSettings,
    feedback=("implicit",),
    module=SASRec,
)
