"""The scorer of models of fields: rows of queries and items from what is known of them, and their scores."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, TypeAlias, cast

import numpy as np
import torch
from safetensors.numpy import load
from torch import Tensor
from typing_extensions import Self

from sparkrec.errors import InputError
from sparkrec.fields import FieldSchema, SparseFeatures
from sparkrec.kernels.arrays import F32, I64
from sparkrec.kernels.gradients import field_pairs
from sparkrec.models.base.field_model import FieldModel
from sparkrec.models.base.inputs import feature_batch
from sparkrec.models.base.recommender import FeatureBatch, Recommender, Sees, Sizes
from sparkrec.models.base.scorers.pairs import PairScorer, array, read_metadata, tensor
from sparkrec.models.base.settings import NetworkSettings

Side: TypeAlias = tuple[I64, F32, SparseFeatures]
"""Ids (n,), rows (n, d) and entries of users or items."""
_FEATURES = "features"


@dataclass(frozen=True)
class FieldScorer(PairScorer):
    """Scores of queries and items, whose rows `queries` and `items` make. `weights` have the rows of all features as
    `features`."""

    layout: FieldSchema = field(default_factory=FieldSchema)
    """Fields of the features."""
    codes: str = ""
    """Digest of the codes of the fields, `FieldCodes.digest`."""

    sees: ClassVar[Sees] = "fields"

    @classmethod
    def of(cls, settings: NetworkSettings, model: Recommender, codes: str = "") -> Self:
        plain, model = PairScorer.of(settings, model), cast(FieldModel, model)
        features = model.items.weight[model.n_items :].cpu().numpy().copy()
        return cls(plain.settings, plain.weights | {_FEATURES: features}, model.layout, codes)

    def metadata(self) -> dict[str, str]:
        return super().metadata() | {"codes": self.codes, "layout": json.dumps(self.layout.to_json())}

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        metadata = read_metadata(data)
        layout = FieldSchema.from_json(json.loads(metadata["layout"]))
        return cls(json.loads(metadata["settings"]), load(data), layout, metadata["codes"])

    @property
    def sizes(self) -> Sizes:
        return Sizes(layout=self.layout)

    @cached_property
    def _model(self) -> FieldModel:
        model = cast(FieldModel, self.module)
        model.items.weight.copy_(torch.from_numpy(self.weights[_FEATURES]))
        return model

    @property
    def row(self) -> int:
        """Numbers in the row of a user or item, before their features."""
        return self._model.row

    @property
    def is_factorized(self) -> bool:
        """Whether its scores are inner products of vectors that `fold_queries` and `fold_items` make."""
        return self._model.is_factorized

    def queries(self, ids: I64, users: F32, entries: SparseFeatures) -> F32:
        """Rows of (n,) queries as `scores` takes them, from (n, d) rows of their users and what is known of them."""
        module = self._model
        with torch.inference_mode():
            return array(module.query_rows(tensor(users), self._known(ids, entries, module.n_query)))

    def items(self, ids: I64, items: F32, entries: SparseFeatures) -> F32:
        """The same of items."""
        module = self._model
        with torch.inference_mode():
            return array(module.item_rows(tensor(items), self._known(ids, entries, module.n_item)))

    @cached_property
    def reads(self) -> tuple[int | None, int | None]:
        """All: a model of fields knows where its fields are."""
        return None, None

    def item_rows(self, rows: F32, entries: SparseFeatures) -> F32:
        return self.items(np.arange(len(rows)), rows, entries)

    def fold_queries(self, rows: F32) -> F32:
        """(n, p) as `queries` makes them -> (n, d) vectors."""
        return self._folded(tensor(rows), None)

    def fold_items(self, rows: F32) -> F32:
        """(n, q) as `items` makes them -> (n, d) vectors."""
        return self._folded(None, tensor(rows))

    def score_events(self, users: Side, items: Side) -> F32:
        """(n,) of n queries, each of one item; by a kernel for lr and fm."""
        if not self._model.is_sum_over_fields:
            return self.score_rows(self.queries(*users), self.items(*items))
        features, constant = np.ascontiguousarray(self.weights[_FEATURES]), float(self.weights["constant"])
        of_users, of_items = (np.ascontiguousarray(rows) for _, rows, _ in (users, items))
        vectors = (self._vectors(entries) for _, _, entries in (users, items))
        return field_pairs.scores(of_users, of_items, features, constant, *vectors)

    def _vectors(self, entries: SparseFeatures) -> field_pairs.Vectors:
        row = entries.row.astype(np.int64)
        return field_pairs.Vectors(entries.start, row, entries.weight, self.layout.field_of[row], np.zeros(0, np.int32))

    def score_rows(self, queries: F32, items: F32) -> F32:
        """(n, p) and (n, q) -> (n,)."""
        with torch.inference_mode():
            return array(self._model.interaction(tensor(queries), tensor(items)))

    def contributions(self, queries: F32, items: F32) -> tuple[list[tuple[str, str | None]], F32]:
        """What the score of each row is the sum of, for lr and fm: fields by themselves, pairs of them, and the
        constant (n, terms); and which they are. Raises InputError for other models, whose scores are no such sum."""
        module = self._model
        if not module.is_sum_over_fields:
            raise InputError(
                f"a {self.settings['kind']} is no sum over fields and pairs of them, as lr and fm are: ask for the "
                "importance of its fields instead"
            )
        names = module.layout.names
        f, g = np.triu_indices(len(names), 1)
        with torch.inference_mode():
            fields = module.fields(tensor(queries), tensor(items)).numpy()
        vectors = fields[..., 1:]
        parts = [fields[..., 0], (vectors[:, f] * vectors[:, g]).sum(-1)] if vectors.shape[-1] else [fields[..., 0]]
        pairs: list[tuple[str, str | None]] = [(names[a], names[b]) for a, b in zip(f, g, strict=True)]
        terms: list[tuple[str, str | None]] = [(name, None) for name in names]
        constant = np.full((len(fields), 1), float(module.constant.detach()), np.float32)
        return [*terms, *(pairs if len(parts) > 1 else []), ("constant", None)], np.concatenate(
            (*parts, constant), axis=1
        )

    def columns(self, name: str) -> tuple[str, list[int]]:
        """Where a field is: columns of `queries`, or of `items`."""
        module = self._model
        place = module.layout.names.index(name)
        return "query" if place < module.n_query else "item", module.columns(place)

    def _folded(self, queries: Tensor | None, items: Tensor | None) -> F32:
        module = self._model
        nothing = torch.zeros(0, max(module.n_query, module.n_item) * module.row)
        with torch.inference_mode():
            vectors = module.vectors(nothing if queries is None else queries, nothing if items is None else items)
            assert vectors is not None
            return array(vectors[0] if items is None else vectors[1])

    def _known(self, ids: I64, entries: SparseFeatures, n_fields: int) -> FeatureBatch:
        return feature_batch(self.layout, n_fields - 1, ids, entries, torch.device("cpu"))
