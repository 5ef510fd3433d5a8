"""Torch modules, one file a model: tensors in, scores out. No device, no process, no DataFrame, no file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparkrec.models.afm import AFM
from sparkrec.models.dcn import DCN
from sparkrec.models.deepfm import DeepFM
from sparkrec.models.fm import FM
from sparkrec.models.fwfm import FwFM
from sparkrec.models.gmf import GMF
from sparkrec.models.lr import LR
from sparkrec.models.mf import MF
from sparkrec.models.mlp import MLP
from sparkrec.models.neumf import NeuMF
from sparkrec.models.nfm import NFM
from sparkrec.models.recommender import Recommender, Sizes
from sparkrec.models.wide_deep import WideDeep

MODELS: dict[str, Callable[[Any, Sizes], Recommender]] = {
    "mf": MF,
    "gmf": GMF,
    "mlp": MLP,
    "neumf": NeuMF,
    "lr": LR,
    "fm": FM,
    "fwfm": FwFM,
    "nfm": NFM,
    "deepfm": DeepFM,
    "wide_deep": WideDeep,
    "dcn": DCN,
    "afm": AFM,
}
"""kind of settings -> module(settings, sizes)."""
