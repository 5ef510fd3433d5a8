"""Neural factorization machines."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from sparkrec.config.model import Declaration, Likeness
from sparkrec.models.base.field_model import FieldModel, weights_of
from sparkrec.models.base.layers import BatchNorm, perceptron
from sparkrec.models.base.recommender import Sizes
from sparkrec.models.base.settings import FieldNetworkSettings
from sparkrec.models.fm import pair_sums


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


class NFM(FieldModel):
    """sum_f a_f + h . MLP(sum_{f < g} v_f * v_g) + c (He and Chua 2017, eq. 7): bi-interaction pooling, batch norm."""

    def __init__(self, settings: NfmSettings, sizes: Sizes) -> None:
        super().__init__(settings, sizes, settings.dim)
        norm: list[nn.Module] = [BatchNorm(settings.dim)] if settings.batch_norm else []
        dropout: list[nn.Module] = [nn.Dropout(settings.dropout)] if settings.dropout else []
        hidden = perceptron([settings.dim, *settings.layers], settings.dropout)
        self.deep = nn.Sequential(
            *norm, *dropout, *hidden, nn.Linear([settings.dim, *settings.layers][-1], 1, bias=False)
        )

    def field_interaction(self, query: Tensor, item: Tensor) -> Tensor:
        x, w = query[..., 1:], item[..., 1:]
        pooled = pair_sums(x) + pair_sums(w) + x.sum(-2) * w.sum(-2)
        deep: Tensor = self.deep(pooled).squeeze(-1)
        return weights_of(query, item) + deep


MODEL = Declaration(
    settings=NfmSettings,
    feedback=("clicks", "explicit", "implicit"),
    module=NFM,
    sees_fields=True,
    likeness=Likeness(lambda settings: (2, settings.dim)),
)
