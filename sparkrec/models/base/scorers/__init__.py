"""Scorers by what their models see: the one of a trained model, and the one that a file holds."""

from __future__ import annotations

import json
from typing import TypeAlias

from sparkrec.config import declaration
from sparkrec.models.base.recommender import Recommender, Sees
from sparkrec.models.base.scorers.fields import FieldScorer
from sparkrec.models.base.scorers.histories import HistoryScorer
from sparkrec.models.base.scorers.pairs import PairScorer, read_metadata
from sparkrec.models.base.settings import NetworkSettings

AnyScorer: TypeAlias = PairScorer | FieldScorer | HistoryScorer

_BY_SIGHT: dict[Sees, type[AnyScorer]] = {
    "ids": PairScorer,
    "fields": FieldScorer,
    "history": HistoryScorer,
    "rows": PairScorer,
}


def scorer_of(settings: NetworkSettings, model: Recommender, codes: str = "") -> AnyScorer:
    """The scorer of a trained model.

    codes  digest of the codes of its fields; "" where there are none
    """
    return _BY_SIGHT[model.sees].of(settings, model, codes)


def load_scorer(data: bytes) -> AnyScorer:
    """The scorer whose `to_bytes` the data are."""
    module = declaration(json.loads(read_metadata(data)["settings"])["kind"]).module
    assert module is not None
    return _BY_SIGHT[module.sees].from_bytes(data)
