"""Factorized personalized Markov chains."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from sparkrec.config.data import DataFacts
from sparkrec.config.model import Declaration
from sparkrec.models.base.recommender import Sizes
from sparkrec.models.base.sequence_model import History, SequenceModel
from sparkrec.models.base.settings import SequenceNetworkSettings


class FpmcSettings(SequenceNetworkSettings):
    """Factorized personalized Markov chain (Rendle et al. 2010): the user, and the last event."""

    kind: Literal["fpmc"] = "fpmc"

    def _usual(self, data: DataFacts) -> dict[str, Any]:
        return super()._usual(data) | {"learning_rate": 0.08, "user_l2": 0.05, "item_l2": 0.005}


class FPMC(SequenceModel):
    """<user, item> + <item after, last event> (Rendle et al. 2010, eq. 5 with baskets of one): rows of items are (after
    a user, after an event, as the event)."""

    def __init__(self, settings: FpmcSettings, sizes: Sizes) -> None:
        super().__init__(sizes.users, settings.dim, sizes.items, 3 * settings.dim)
        self.dim, self.length = settings.dim, sizes.length

    def states(self, users: Tensor, history: History) -> Tensor:
        last = self.items(history.items[history.at])[..., 2 * self.dim :]
        return torch.cat((self.users(users), last), -1)

    def output_embeddings(self, w: Tensor) -> Tensor:
        return w[..., : 2 * self.dim]


MODEL = Declaration(
    settings=FpmcSettings,
    feedback=("implicit",),
    module=FPMC,
)
