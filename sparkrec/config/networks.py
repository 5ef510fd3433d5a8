"""Models that torch trains."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from sparkrec.config.base import Reference
from sparkrec.config.data import DataFacts, ModelKind, significant
from sparkrec.config.training import TrainingSettings

MOST_ITEMS = 50_000
"""Of a softmax over all items, where nothing else is said."""


class NetworkSettings(ModelKind):
    """What all models that torch trains have."""

    training: TrainingSettings = TrainingSettings()
    """How it is trained."""

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


class MfSettings(NetworkSettings):
    """Matrix factorization with biases (Koren et al. 2009)."""

    kind: Literal["mf"] = "mf"
    dim: int = Field(64, ge=1)
    """Length of the vectors of users and items."""


class GmfSettings(NetworkSettings):
    """Generalized matrix factorization (He et al. 2017)."""

    kind: Literal["gmf"] = "gmf"
    dim: int = Field(64, ge=1)
    """Length of the vectors of users and items."""


class _Layers(NetworkSettings):
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


class MlpSettings(_Layers):
    """Multi-layer perceptron on user and item (He et al. 2017)."""

    kind: Literal["mlp"] = "mlp"


class NeumfSettings(_Layers):
    """GMF and MLP in one (He et al. 2017)."""

    kind: Literal["neumf"] = "neumf"
    dim: int = Field(32, ge=1)
    """Of the GMF part."""
    start_from: list[Reference] = []
    """A trained gmf and mlp of the same sizes."""


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


class LrSettings(FieldNetworkSettings):
    """Logistic, or with squared loss linear, regression on features."""

    kind: Literal["lr"] = "lr"


class FmSettings(FieldNetworkSettings):
    """Factorization machine (Rendle 2010)."""

    kind: Literal["fm"] = "fm"
    dim: int = Field(10, ge=1)
    """Length of the vectors."""


class FwfmSettings(FieldNetworkSettings):
    """Field-weighted factorization machine (Pan et al. 2018)."""

    kind: Literal["fwfm"] = "fwfm"
    dim: int = Field(10, ge=1)
    """Length of the vectors."""


class NfmSettings(FieldNetworkSettings):
    """Neural factorization machine (He and Chua 2017)."""

    kind: Literal["nfm"] = "nfm"
    dim: int = Field(10, ge=1)
    """Length of the vectors."""
    layers: list[Annotated[int, Field(ge=1)]] = [64]
    """Sizes of the hidden layers."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """After bi-interaction pooling and after each layer."""
    batch_norm: bool = True
    """After bi-interaction pooling."""


class _DeepSettings(FieldNetworkSettings):
    dim: int = Field(10, ge=1)
    """Length of the vectors."""
    layers: list[Annotated[int, Field(ge=1)]] = Field([128, 128, 128], min_length=1)
    """Sizes of the hidden layers."""
    batch_norm: bool = False
    """Before the ReLU of each of them."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """After each of them."""


class DeepfmSettings(_DeepSettings):
    """DeepFM (Guo et al. 2017)."""

    kind: Literal["deepfm"] = "deepfm"


class WideDeepSettings(_DeepSettings):
    """Wide and deep learning (Cheng et al. 2016)."""

    kind: Literal["wide_deep"] = "wide_deep"
    crosses: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = []
    """Pairs of fields of one value a row, such as [user, weekday], each a field of its own in the wide part. `user` and
    `item` are the ids."""
    cross_rate: float = Field(1.0, gt=0)
    """Learning rate of the crosses over that of all else: what is to be remembered moves faster than what is to
    generalise."""
    cross_buckets: int = Field(100_000, ge=1)
    """Of each cross: pairs of values share them by hash."""


class DcnSettings(_DeepSettings):
    """Deep and cross network, version 2 (Wang et al. 2021)."""

    kind: Literal["dcn"] = "dcn"
    cross_layers: int = Field(3, ge=1)
    """Layers of the cross network."""


class AfmSettings(FieldNetworkSettings):
    """Attentional factorization machine (Xiao et al. 2017)."""

    kind: Literal["afm"] = "afm"
    dim: int = Field(10, ge=1)
    """Length of the vectors."""
    attention: int = Field(16, ge=1)
    """Size of the attention layer."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """After attention pooling."""


class SequenceNetworkSettings(NetworkSettings):
    """Of models that see what a user did in order: they need a dataset with `sequences`, and see as many events as its
    `length`."""

    dim: int = Field(64, ge=1)
    """Length of the vectors of items."""

    def suited(self, data: DataFacts) -> Self:
        training = self.training.suited(data, self._usual(data), sequences=True)
        return self.model_copy(update={"training": training})

    def _usual(self, data: DataFacts) -> dict[str, Any]:
        whole = data.items <= MOST_ITEMS
        usual: dict[str, Any] = {"loss": "full_softmax" if whole else "softmax", "negatives": 0 if whole else 128}
        usual |= {"optimizer": "adagrad", "learning_rate": 0.05, "init_scale": 0.1, "user_l2": 0.0, "item_l2": 0.0}
        return usual


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


class FpmcSettings(SequenceNetworkSettings):
    """Factorized personalized Markov chain (Rendle et al. 2010): the user, and the last event."""

    kind: Literal["fpmc"] = "fpmc"

    def _usual(self, data: DataFacts) -> dict[str, Any]:
        return super()._usual(data) | {"learning_rate": 0.08, "user_l2": 0.05, "item_l2": 0.005}


class _DropoutSettings(SequenceNetworkSettings):
    dropout: float = Field(0.2, ge=0, lt=1)
    """Share of the units that a step leaves out."""


class Gru4recSettings(_DropoutSettings):
    """Gated recurrent units over the history (Hidasi et al. 2016)."""

    kind: Literal["gru4rec"] = "gru4rec"
    hidden: int = Field(64, ge=1)
    """Of the recurrent state."""
    layers: int = Field(1, ge=1)
    """Recurrent layers."""


class CaserSettings(_DropoutSettings):
    """Convolutions over the last events, and the user (Tang and Wang 2018). Needs windows: `sequences.targets`."""

    kind: Literal["caser"] = "caser"
    horizontal: int = Field(16, ge=1)
    """Filters of each height."""
    vertical: int = Field(4, ge=1)
    """Vertical filters."""


class _AttentionSettings(_DropoutSettings):
    blocks: int = Field(2, ge=1)
    """Blocks of attention and a layer on each event."""
    heads: int = Field(1, ge=1)
    """Heads of attention, each with an equal part of `dim`."""

    @model_validator(mode="after")
    def _heads_share(self) -> _AttentionSettings:
        if self.dim % self.heads:
            raise ValueError(f"heads: found {self.heads}, expected a divisor of dim, {self.dim}")
        return self


class SasrecSettings(_AttentionSettings):
    """Self-attention over the history (Kang and McAuley 2018)."""

    kind: Literal["sasrec"] = "sasrec"


class Bert4recSettings(_AttentionSettings):
    """Events that are hidden are predicted from those before and after them (Sun et al. 2019)."""

    kind: Literal["bert4rec"] = "bert4rec"
    masked: float = Field(0.2, gt=0, lt=1)
    """Share of the events of a sequence that are hidden; at least one."""
