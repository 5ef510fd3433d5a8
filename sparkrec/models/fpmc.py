"""Factorized personalized Markov chains."""

from __future__ import annotations

import torch
from torch import Tensor

from sparkrec.config import FpmcSettings
from sparkrec.models.base.recommender import Sizes
from sparkrec.models.base.sequence_model import History, SequenceModel


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
