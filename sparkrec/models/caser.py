"""Convolutions over the last events."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sparkrec.config.model import Declaration, SequenceNeeds
from sparkrec.models.base.recommender import Sizes
from sparkrec.models.base.sequence_model import History, SequenceModel, left_padded, similar
from sparkrec.models.base.settings import DropoutSettings


class CaserSettings(DropoutSettings):
    """Convolutions over the last events, and the user (Tang and Wang 2018). Needs windows: `sequences.targets`."""

    kind: Literal["caser"] = "caser"
    horizontal: int = Field(16, ge=1)
    """Filters of each height."""
    vertical: int = Field(4, ge=1)
    """Vertical filters."""

    @property
    def sequence_needs(self) -> SequenceNeeds:
        return SequenceNeeds(windows=True, cut=(("length", 5), ("targets", 3)))  # as in the paper


class Caser(SequenceModel):
    """Tang and Wang 2018: the last L events as an image. Horizontal filters see h = 1 ... L events at once, and keep
    the strongest of what they see; vertical ones weigh the L events. Both give a vector, z; what comes next is the
    item whose vector and bias are most like (z, user). Rows of items are (as event, as answer, bias).

    Where a history is shorter than L, no filter sees what is not there, and nothing is spent on it.
    """

    asks = "last"

    def __init__(self, settings: CaserSettings, sizes: Sizes) -> None:
        d, n = settings.dim, sizes.length
        super().__init__(sizes.users, d, sizes.items, 3 * d + 1)
        self.dim, self.length, self.filters = d, n, settings.horizontal
        self.horizontal = nn.ModuleList([nn.Linear(h * d, settings.horizontal) for h in range(1, n + 1)])
        self.vertical = nn.Linear(n, settings.vertical, bias=False)
        self.drop = nn.Dropout(settings.dropout)
        self.layer = nn.Linear(n * settings.horizontal + settings.vertical * d, d)

    def states(self, users: Tensor, history: History) -> Tensor:
        rows = self.items(history.items)[..., : self.dim]
        known = history.at - history.start[history.of[history.at]] + 1
        groups = similar(known.clamp(max=self.length))
        seen = torch.cat([self._seen(rows, history._replace(at=history.at[some])) for some in groups])
        z = self.layer(self.drop(seen[torch.cat(groups).argsort()])).relu()
        return torch.cat((z, self.users(users), z.new_ones(len(z), 1)), 1)

    def _seen(self, rows: Tensor, history: History) -> Tensor:
        """What the filters see of each question, the last of which has most events before it."""
        last = history.at[-1:]
        n = int((last - history.start[history.of[last]] + 1).clamp(max=self.length))
        places, there = left_padded(history, n)
        events = rows[places] * there[..., None]
        found = []
        for h, seen in enumerate(self.horizontal[:n], 1):
            windows = events.unfold(1, h, 1).transpose(2, 3).flatten(2)  # (n, L - h + 1, h d)
            whole = there[:, : n - h + 1, None]  # from its first event on, all are there
            found.append((seen(windows).relu() * whole).amax(1))
        nothing = events.new_zeros(len(events), (self.length - n) * self.filters)
        weighed = F.linear(events.transpose(1, 2), self.vertical.weight[:, self.length - n :])
        return torch.cat((*found, nothing, weighed.flatten(1)), 1)

    def output_embeddings(self, w: Tensor) -> Tensor:
        return w[..., self.dim :]


MODEL = Declaration(
    settings=CaserSettings,
    feedback=("implicit",),
    module=Caser,
)
