"""Items by those around them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor

from sparkrec.config.data import DataFacts
from sparkrec.config.model import Declaration, SequenceNeeds
from sparkrec.config.training import TrainingSettings
from sparkrec.kernels.gradients import contexts
from sparkrec.models.base.gradient_kernels import tables
from sparkrec.models.base.recommender import KernelStep, Sizes, Unit
from sparkrec.models.base.sequence_model import History, SequenceModel
from sparkrec.models.base.settings import SequenceNetworkSettings


class Item2vecSettings(SequenceNetworkSettings):
    """Items by those around them (Barkan and Koenigstein 2016): word2vec (Mikolov et al. 2013) on histories. Who asks
    is the mean of the items of the history."""

    kind: Literal["item2vec"] = "item2vec"
    training: TrainingSettings = TrainingSettings(popularity_power=0.75)
    """How it is trained."""
    architecture: Literal["skip_gram", "cbow"] = "skip_gram"
    """skip_gram: each of those around an event predicts it; cbow: their mean does."""
    window: int = Field(5, ge=1)
    """Most places between two events that are around each other; of each event drawn from 1 to this."""
    subsample: float = Field(0.0, ge=0)
    """t: an event whose item is a share f of all stays in an epoch with a chance of sqrt(t / f) + t / f. 0: all do."""
    shuffle: bool = False
    """Whether the order of a history is nothing: it is drawn anew in each epoch."""

    def _usual(self, data: DataFacts) -> dict[str, Any]:
        return super()._usual(data) | {"loss": "bce", "negatives": 5}

    @model_validator(mode="after")
    def _has_a_kernel(self) -> Item2vecSettings:
        training = self.training
        for name, expected in (("loss", "bce"), ("negative_sampling", "items"), ("device", "cpu"), ("accumulate", 1)):
            if (found := getattr(training, name)) not in (None, expected):
                raise ValueError(f"training.{name} of item2vec: found {found}, expected {expected}")
        if training.negatives == 0:
            raise ValueError("training.negatives of item2vec: found 0, expected 1 or more")
        return self

    @property
    def sequence_needs(self) -> SequenceNeeds:
        return SequenceNeeds(ordered=not self.shuffle, unordered_remedy="set model.shuffle to true")


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


MODEL = Declaration(
    settings=Item2vecSettings,
    feedback=("implicit",),
    module=Item2Vec,
)
