"""Neural factorization machines."""

from __future__ import annotations

from torch import Tensor, nn

from sparkrec.config import NfmSettings
from sparkrec.models.base.field_model import FieldModel, weights_of
from sparkrec.models.base.layers import BatchNorm, perceptron
from sparkrec.models.base.recommender import Sizes
from sparkrec.models.fm import pair_sums


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
