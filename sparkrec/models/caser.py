"""Convolutions over the last events."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparkrec.config import CaserSettings
from sparkrec.models.recommender import Sizes
from sparkrec.models.sequence_model import History, SequenceModel, left_padded


class Caser(SequenceModel):
    """Tang and Wang 2018: the last L events as an image. Horizontal filters see h = 1 ... L events at once, and keep
    the strongest of what they see; vertical ones weigh the L events. Both give a vector, z; what comes next is the
    item whose vector and bias are most like (z, user). Rows of items are (as event, as answer, bias).

    Where a history is shorter than L, no filter sees what is not there.
    """

    asks = "last"

    def __init__(self, settings: CaserSettings, sizes: Sizes) -> None:
        d, n = settings.dim, sizes.length
        super().__init__(sizes.users, d, sizes.items, 3 * d + 1)
        self.dim, self.length = d, n
        self.horizontal = nn.ModuleList([nn.Linear(h * d, settings.horizontal) for h in range(1, n + 1)])
        self.vertical = nn.Linear(n, settings.vertical, bias=False)
        self.drop = nn.Dropout(settings.dropout)
        self.layer = nn.Linear(n * settings.horizontal + settings.vertical * d, d)

    def states(self, users: Tensor, history: History) -> Tensor:
        places, there = left_padded(history, self.length)
        events = self.items(history.items)[..., : self.dim][places] * there[..., None]
        found = []
        for h, seen in enumerate(self.horizontal, 1):
            windows = events.unfold(1, h, 1).transpose(2, 3).flatten(2)  # (n, L - h + 1, h d)
            whole = there[:, : self.length - h + 1, None]  # from its first event on, all are there
            found.append((seen(windows).relu() * whole).amax(1))
        weighed = self.vertical(events.transpose(1, 2)).flatten(1)
        z = self.layer(self.drop(torch.cat((*found, weighed), 1))).relu()
        return torch.cat((z, self.users(users), z.new_ones(len(z), 1)), 1)

    def answers(self, w: Tensor) -> Tensor:
        return w[..., self.dim :]
