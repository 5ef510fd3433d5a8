"""Wide and deep learning."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sparkrec.config.features import FeatureSettings, MultiField, NumericField
from sparkrec.config.model import Declaration, Likeness, ModelSettings
from sparkrec.config.prepare import PrepareSettings
from sparkrec.errors import ConfigError
from sparkrec.models.base.field_model import FieldModel, weights_of
from sparkrec.models.base.layers import Tower
from sparkrec.models.base.recommender import FeatureBatch, Sizes
from sparkrec.models.base.settings import DeepSettings


class WideDeepSettings(DeepSettings):
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

    def check_dataset(self, prepared: PrepareSettings, dataset: str) -> None:
        super().check_dataset(prepared, dataset)
        self._check_crosses(prepared.features or FeatureSettings())

    def check_warm_start(self, earlier: ModelSettings) -> None:
        if self.crosses:
            raise ConfigError(
                "found crosses, which go by the rows of a dataset's features, and other datasets move these"
            )
        super().check_warm_start(earlier)

    def _check_crosses(self, features: FeatureSettings) -> None:
        """Raise ConfigError where a cross is of a field that may have several values, or that the dataset has not."""
        sides = [side.fields for side in features.sides.values()]
        fields = [field for listed in (features.context, *sides) for field in listed]
        crossed = {name for cross in self.crosses for name in cross}
        several = {field.title for field in fields if isinstance(field, MultiField)}
        plain = {field.title for field in fields if isinstance(field, NumericField) and field.scale != "buckets"}
        for wrong, why in ((several, "have several values a row"), (plain, "are numbers: give them scale buckets")):
            if found := sorted(crossed & wrong):
                raise ConfigError(f"crosses: {', '.join(found)} {why}; expected fields of one category a row")
        names = ["user", "item", *(field.title for field in fields)]
        if unknown := sorted(crossed.difference(names)):
            raise ConfigError(
                f"crosses: found no field {', '.join(unknown)} in the dataset, which has {', '.join(names)}"
            )


class WideDeep(FieldModel):
    """sum_f a_f + sum over crosses of b_hash(f, g) + h . MLP(v_1, ..., v_F) + c (Cheng et al. 2016, eq. 3).

    A cross is a feature for each pair of values of two fields, in a table of hash buckets. What it is made of rides
    behind the fields in x and w: the row of each field that is crossed, as the bits of a float.
    """

    def __init__(self, settings: WideDeepSettings, sizes: Sizes) -> None:
        super().__init__(settings, sizes, settings.dim)
        sides = self.n_query * settings.dim, self.n_item * settings.dim
        self.deep = Tower(*sides, settings.layers, settings.dropout, settings.batch_norm)
        self.out = nn.Linear(settings.layers[-1], 1, bias=False)
        self.buckets, self.rate = settings.cross_buckets, settings.cross_rate
        names = sizes.layout.names
        crosses = settings.crosses
        if unknown := sorted({name for cross in crosses for name in cross} - set(names)):
            raise ValueError(f"crosses: found no field {', '.join(unknown)} among {', '.join(names)}")
        self.crosses = [(names.index(a), names.index(b)) for a, b in crosses]
        used = sorted({field for cross in self.crosses for field in cross})
        self._query = [field for field in used if field < self.n_query]
        self._item = [field for field in used if field >= self.n_query]
        if crosses:
            self.crossed = nn.Parameter(torch.zeros(len(crosses) * self.buckets))

    def field_interaction(self, query: Tensor, item: Tensor) -> Tensor:
        x, w = query[..., 1:], item[..., 1:]
        deep: Tensor = self.out(self.deep(x.flatten(-2), w.flatten(-2))).squeeze(-1)
        return weights_of(query, item) + deep

    def interaction(self, x: Tensor, w: Tensor) -> Tensor:
        logits = super().interaction(x, w)
        if not self.crosses:
            return logits
        first = self.n_query * self.row, self.n_item * self.row
        codes = {field: _bits(x[..., first[0] + at]) for at, field in enumerate(self._query)}
        codes |= {field: _bits(w[..., first[1] + at]) for at, field in enumerate(self._item)}
        for at, (f, g) in enumerate(self.crosses):
            logits = logits + self.rate * self.crossed[at * self.buckets + _mixed(codes[f], codes[g]) % self.buckets]
        return logits

    def columns(self, field: int) -> list[int]:
        behind, used = (self.n_query, self._query) if field < self.n_query else (self.n_item, self._item)
        code = [behind * self.row + used.index(field)] if field in used else []
        return super().columns(field) + code

    def query_rows(self, rows: Tensor, known: FeatureBatch | None) -> Tensor:
        return self._with_codes(super().query_rows(rows, known), known, self._query, 0, self.n_query)

    def item_rows(self, rows: Tensor, known: FeatureBatch | None) -> Tensor:
        return self._with_codes(super().item_rows(rows, known), known, self._item, self.n_query, self.n_item)

    def _with_codes(
        self, rows: Tensor, known: FeatureBatch | None, wanted: list[int], first: int, n_fields: int
    ) -> Tensor:
        if not wanted:
            return rows
        assert known is not None
        codes = torch.zeros(len(known.ids), n_fields, dtype=torch.int32, device=rows.device)
        codes[:, 0] = known.ids.int()
        if n_fields > 1:
            features = codes.new_zeros(len(known.ids) * (n_fields - 1))
            places = slice(None) if known.slot is None else known.slot
            features[places] = known.row.int()
            codes[:, 1:] = features.view(len(known.ids), n_fields - 1)
        chosen = codes[:, [field - first for field in wanted]].view(torch.float32)
        return torch.cat((rows, chosen.view(*rows.shape[:-1], len(wanted))), -1)


def _bits(rows: Tensor) -> Tensor:
    return rows.detach().contiguous().view(torch.int32).long()


def _mixed(a: Tensor, b: Tensor) -> Tensor:
    """A hash of two numbers below 2^32, 31 bits (the multipliers of splitmix64, Steele et al. 2014)."""
    mixed = (a * 0x1F58476D1CE4E5B9 + b) * 0x14D049BB133111EB
    return (mixed >> 32) & 0x7FFFFFFF


MODEL = Declaration(
    settings=WideDeepSettings,
    feedback=("clicks", "explicit", "implicit"),
    module=WideDeep,
    sees_fields=True,
    likeness=Likeness(lambda settings: (2, settings.dim)),
)
