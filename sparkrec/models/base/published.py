"""What a published model hands on to one that starts from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sparkrec.config import ModelSettings
from sparkrec.fields import FieldSchema
from sparkrec.kernels.arrays import F32, I64

SCORER_FILE = "head.safetensors"
"""Name of the scorer's file beside the tables of a model."""
ENCODER_FILE = "encoder.safetensors"
"""Name of the file of what makes rows of users, where a model has such."""
LEARNED = "learned"
"""Folder of what a network had learned, as its last checkpoint kept it: what is published follows from it, and not the
other way round."""


class Published(NamedTuple):
    """A trained model as its run has published it."""

    settings: ModelSettings
    users: F32
    """(n, p) rows, of the users of the model that starts from it, in their order."""
    items: F32
    """(m, q) rows of all items."""
    weights: Mapping[str, F32]
    """Of its scorer, by name; none where it was published as plain vectors."""
    layout: FieldSchema | None
    """Of its fields, where it has such."""


class FieldRows(NamedTuple):
    """Weights and vectors (n, 1 + d) that a model of fields can take over."""

    users: F32
    items: F32
    features: F32 | None
    """Of all features of `layout`; None where the model that published them sees none."""
    layout: FieldSchema | None


class WarmStart(NamedTuple):
    """An earlier model of the same kind and shape, whose rows a fit begins with."""

    folder: str
    """Of its run."""
    settings: ModelSettings
    """It was fitted with these, complete."""
    features: I64 | None = None
    """(n,) of each feature its row among the features of that model, -1 where it has none; None: there are no
    features."""
