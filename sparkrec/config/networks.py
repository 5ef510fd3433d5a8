"""Models that torch trains."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from sparkrec.config.base import Reference, Settings
from sparkrec.config.training import TrainingSettings


class NetworkSettings(Settings):
    training: TrainingSettings = TrainingSettings()


class MfSettings(NetworkSettings):
    """Matrix factorization with biases (Koren et al. 2009)."""

    kind: Literal["mf"] = "mf"
    dim: int = Field(64, ge=1)


class GmfSettings(NetworkSettings):
    """Generalized matrix factorization (He et al. 2017)."""

    kind: Literal["gmf"] = "gmf"
    dim: int = Field(64, ge=1)


class _Layers(NetworkSettings):
    layers: list[int] = Field([64, 32, 16, 8], min_length=2)
    """Sizes, from the concatenation of user and item on."""
    dropout: float = Field(0.0, ge=0, lt=1)

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
