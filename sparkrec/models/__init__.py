"""Torch modules, one file a model: tensors in, scores out. No device, no process, no DataFrame, no file."""

from __future__ import annotations

from typing import Any

from sparkrec.models.afm import AFM
from sparkrec.models.bert4rec import BERT4Rec
from sparkrec.models.caser import Caser
from sparkrec.models.dcn import DCN
from sparkrec.models.deepfm import DeepFM
from sparkrec.models.fm import FM
from sparkrec.models.fpmc import FPMC
from sparkrec.models.fwfm import FwFM
from sparkrec.models.gmf import GMF
from sparkrec.models.gru4rec import GRU4Rec
from sparkrec.models.item2vec import Item2Vec
from sparkrec.models.lr import LR
from sparkrec.models.mf import MF
from sparkrec.models.mlp import MLP
from sparkrec.models.neumf import NeuMF
from sparkrec.models.nfm import NFM
from sparkrec.models.sasrec import SASRec
from sparkrec.models.wide_deep import WideDeep

MODELS: dict[str, Any] = {
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
    "item2vec": Item2Vec,
    "fpmc": FPMC,
    "gru4rec": GRU4Rec,
    "caser": Caser,
    "sasrec": SASRec,
    "bert4rec": BERT4Rec,
}
"""kind of settings -> module(settings, sizes)."""
