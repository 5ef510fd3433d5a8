"""Items by those around them."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from sparkrec.config import Item2vecSettings
from sparkrec.kernels.gradients import contexts
from sparkrec.models.base.gradient_kernels import tables
from sparkrec.models.base.recommender import KernelStep, Sizes, Unit
from sparkrec.models.base.sequence_model import History, SequenceModel


class Item2Vec(SequenceModel):
    """<mean of the history's vectors, item as an answer>; rows of items are (as event, as answer), which
    `kernels.contexts` trains (Mikolov et al. 2013; Barkan and Koenigstein 2016)."""

    asks = "around"
    unit: ClassVar[Unit] = "contexts"

    def __init__(self, settings: Item2vecSettings, sizes: Sizes) -> None:
        super().__init__(sizes.users, 0, sizes.items, 2 * settings.dim)
        self.dim, self.length, self.bags = settings.dim, sizes.length, settings.architecture == "cbow"
        self.window, self.subsample, self.shuffle = settings.window, settings.subsample, settings.shuffle

    def gradient_kernel(self, step: KernelStep) -> float:
        return float(contexts.add_gradients(tables(self)[1], step.batch, self.bags, step.scale, step.item_sums))

    def states(self, users: Tensor, history: History) -> Tensor:
        rows = self.items(history.items)[..., : self.dim]
        before = history.start[:-1][history.of[history.at]]
        sums = rows.double().cumsum(0)
        own = sums[history.at] - sums[before] + rows[before]
        found: Tensor = own / (history.at - before + 1)[:, None]
        return found.to(rows.dtype)

    def output_embeddings(self, w: Tensor) -> Tensor:
        return w[..., self.dim :]
