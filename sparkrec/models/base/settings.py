"""Settings that networks have in common: of all, of those that see features, of those that see the order of events."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from sparkrec.config.base import Reference
from sparkrec.config.data import DataFacts, significant
from sparkrec.config.model import ModelSettings, SequenceNeeds
from sparkrec.config.prepare import PrepareSettings
from sparkrec.config.training import TrainingSettings
from sparkrec.errors import ConfigError, TrainError

if TYPE_CHECKING:
    from sparkrec.models.base.recommender import Recommender, Sizes

MOST_ITEMS = 50_000
"""Of a softmax over all items, where nothing else is said."""


class NetworkSettings(ModelSettings):
    """What all models that torch trains have."""

    training: TrainingSettings = TrainingSettings()
    """How it is trained."""

    @property
    def module(self) -> type[Recommender]:
        """The class of what is trained."""
        assert self.declaration.module is not None
        return self.declaration.module

    def network(self, sizes: Sizes) -> Recommender:
        """A network of this kind, its tables not yet filled."""
        make: Any = self.module
        network: Recommender = make(self, sizes)
        return network

    def suited(self, data: DataFacts) -> Self:
        return self.model_copy(update={"training": self.training.suited(data, self._usual(data))})

    def _usual(self, data: DataFacts) -> dict[str, Any]:
        """Settings of training that suit the kind: adagrad takes steps by how often a row was read, which holds from
        thousands of rows to millions where a rate of adam does not."""
        if data.values == "ratings":  # in deviations: a scale of 1 to 10 is no other than one of 1 to 5
            scale = data.deviation or 1.0
            root = scale**0.5
            usual: dict[str, Any] = {"loss": "squared", "negatives": 0, "optimizer": "adagrad"}
            usual |= {"learning_rate": 0.1 * root, "init_scale": 0.2 * root, "user_l2": 0.08 * scale}
            usual |= {"item_l2": 0.08 * scale}
        else:
            loss = ("log_loss", 0) if data.values == "clicks" else ("bce", 8)
            usual = {"loss": loss[0], "negatives": loss[1], "optimizer": "adagrad", "learning_rate": 0.08}
            usual |= {"init_scale": 0.1, "user_l2": 0.05 * data.scarcity, "item_l2": 0.0125 * data.scarcity}
        return {name: significant(value) if isinstance(value, float) else value for name, value in usual.items()}

    def check_packages(self) -> None:
        """Raise ConfigError where what starts the processes is not installed."""
        if self.training.launcher == "horovod" and find_spec("horovod") is None:
            raise ConfigError(
                "training.launcher horovod needs Horovod, which is not installed: `make setup` builds it where there "
                "is a C++ compiler. Or leave training.launcher out: torch connects the processes then."
            )

    def check_dataset(self, prepared: PrepareSettings, dataset: str) -> None:
        super().check_dataset(prepared, dataset)
        if self.needs_validation and not prepared.has_validation:
            raise TrainError(
                f"training.stopping needs a validation split, and dataset {dataset} has none: prepare it with one, or "
                "set training.stopping to null."
            )

    def check_warm_start(self, earlier: ModelSettings) -> None:
        if earlier.kind != self.kind:
            raise ConfigError(f"found a {earlier.kind}, expected a {self.kind}")
        if _shapes(earlier) != _shapes(self):
            then, now = (each.model_dump(exclude={"training", "start_from"}) for each in (earlier, self))
            changed = [f"{name} {old}, expected {now[name]}" for name, old in then.items() if old != now[name]]
            raise ConfigError(f"found a {self.kind} of another shape: {'; '.join(changed)}")

    @property
    def needs_validation(self) -> bool:
        return self.training.stopping is not None

    @property
    def wants_validation(self) -> bool:
        return self.needs_validation or self.training.epochs is None


def _shapes(settings: Any) -> dict[str, tuple[int, ...]]:
    """Of all that a network learns, but for how many users, items and features there are."""
    from sparkrec.models.base.recommender import Sizes

    network: Recommender = settings.network(Sizes())
    rows = {"users": network.users.weight[:0], "items": network.items.weight[:0]}
    return {name: tuple(each.shape) for name, each in (*rows.items(), *network.named_parameters())}


class LayeredSettings(NetworkSettings):
    """Of a tower on the concatenation of user and item."""

    layers: list[int] = Field([64, 32, 16, 8], min_length=2)
    """Sizes, from the concatenation of user and item on."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the units that a step leaves out."""

    @field_validator("layers")
    @classmethod
    def _halves(cls, layers: list[int]) -> list[int]:
        if layers[0] % 2 or min(layers) < 1:
            raise ValueError(f"expected positive sizes, the first even for user and item to share, found {layers}")
        return layers


class FieldNetworkSettings(NetworkSettings):
    """Of models that see features of users, items and contexts, as the dataset has them."""

    start_from: list[Reference] = []
    """A trained mf or model of features, of the same dim and dataset, whose weights and vectors this begins with."""
    weight_l2: float = Field(1.0, ge=0)
    """L2 on the weights of users, items and features, over that on their vectors (`user_l2`, `item_l2`)."""
    frozen: bool = False
    """Weights and vectors stay as `start_from` has them, and the layers above them learn."""

    @model_validator(mode="after")
    def _frozen_is_something(self) -> FieldNetworkSettings:
        if len(self.start_from) > 1 or (self.frozen and not self.start_from):
            raise ValueError(f"start_from: found {self.start_from}, expected one model" + " to freeze" * self.frozen)
        return self

    def check_dataset(self, prepared: PrepareSettings, dataset: str) -> None:
        super().check_dataset(prepared, dataset)
        items = prepared.features.items if prepared.features else None
        shares = self.training.loss in ("full_softmax", "all_squared") or self.training.negative_sampling == "batch"
        if shares and items is not None and items.timestamp:
            raise TrainError(
                "a loss over all items, or the items of a batch, does not fit item features with a timestamp: each "
                "example sees other values. Choose a loss with drawn negatives."
            )

    @property
    def parents(self) -> list[str]:
        return self.start_from


class DeepSettings(FieldNetworkSettings):
    """Of field models with hidden layers."""

    dim: int = Field(10, ge=1)
    """Length of the vectors."""
    layers: list[Annotated[int, Field(ge=1)]] = Field([128, 128, 128], min_length=1)
    """Sizes of the hidden layers."""
    batch_norm: bool = False
    """Before the ReLU of each of them."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """After each of them."""


class SequenceNetworkSettings(NetworkSettings):
    """Of models that see what a user did in order: they need a dataset with `sequences`, and see as many events as its
    `length`."""

    dim: int = Field(64, ge=1)
    """Length of the vectors of items."""

    def suited(self, data: DataFacts) -> Self:
        training = self.training.suited(data, self._usual(data), by_user=True)
        return self.model_copy(update={"training": training})

    def _usual(self, data: DataFacts) -> dict[str, Any]:
        whole = data.items <= MOST_ITEMS
        usual: dict[str, Any] = {"loss": "full_softmax" if whole else "softmax", "negatives": 0 if whole else 128}
        usual |= {"optimizer": "adagrad", "learning_rate": 0.05, "init_scale": 0.1, "user_l2": 0.0, "item_l2": 0.0}
        return usual

    @property
    def sequence_needs(self) -> SequenceNeeds:
        return SequenceNeeds()


class DropoutSettings(SequenceNetworkSettings):
    """Of models of sequences with dropout."""

    dropout: float = Field(0.2, ge=0, lt=1)
    """Share of the units that a step leaves out."""


class AttentionSettings(DropoutSettings):
    """Of models of sequences with attention."""

    blocks: int = Field(2, ge=1)
    """Blocks of attention and a layer on each event."""
    heads: int = Field(1, ge=1)
    """Heads of attention, each with an equal part of `dim`."""

    @model_validator(mode="after")
    def _heads_share(self) -> AttentionSettings:
        if self.dim % self.heads:
            raise ValueError(f"heads: found {self.heads}, expected a divisor of dim, {self.dim}")
        return self
