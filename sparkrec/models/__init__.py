"""Torch modules, one file a model: tensors in, scores out. No device, no process, no DataFrame, no file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparkrec.models.gmf import GMF
from sparkrec.models.mf import MF
from sparkrec.models.mlp import MLP
from sparkrec.models.neumf import NeuMF
from sparkrec.models.recommender import Recommender

MODELS: dict[str, Callable[[Any, int, int], Recommender]] = {"mf": MF, "gmf": GMF, "mlp": MLP, "neumf": NeuMF}
"""kind of settings -> module(settings, n_users, n_items)."""
