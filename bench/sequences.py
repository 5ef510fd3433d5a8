"""What `bench training` needs for models of sequences: our shards, and SASRec as it is commonly written in torch."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from bench.measure import CORES, Given, Row
from sparkrec.shards import Shards

LENGTH = 50
SEQUENCES: dict[str, dict[str, Any]] = {
    "sasrec_bce": {"kind": "sasrec", "dim": 64, "dropout": 0.5, "training": {"loss": "bce", "negatives": 1}},
    "sasrec_ce": {"kind": "sasrec", "dim": 64, "dropout": 0.5, "training": {"loss": "full_softmax"}},
    "gru4rec": {"kind": "gru4rec", "dim": 64, "hidden": 128, "training": {"loss": "full_softmax"}},
    "caser": {"kind": "caser", "dim": 64, "horizontal": 8, "vertical": 4, "training": {"loss": "full_softmax"}},
    "item2vec": {"kind": "item2vec", "dim": 64, "window": 10, "shuffle": True,
                 "training": {"loss": "bce", "negatives": 5, "popularity_power": 0.75, "batch": 512}},
}  # fmt: skip
"""Settings of each case; batches have 128 sequences where they do not say."""


def shards(interactions: str, folder: str, kind: str) -> Shards:
    """The sequences as the pipeline cuts them: whole ones, or windows for caser; of any order where none is known."""
    from pyspark.sql import functions as F

    from bench.spark import session
    from sparkrec.config import SequenceSettings
    from sparkrec.spark.data.sequences import sequences
    from sparkrec.spark.data.shards import SequenceShards, write_shards

    read = session(CORES).read.parquet(interactions)
    time = F.timestamp_seconds("position") if "position" in read.columns else F.lit(None).cast("timestamp")
    events = read.select(
        F.col("user_id").cast("long").alias("user"),
        F.col("item_id").cast("int").alias("item"),
        time.alias("timestamp"),
        F.lit(1.0).alias("value"),
        F.lit(1.0).alias("confidence"),
    )  # fmt: skip
    items = np.arange(events.agg(F.max("item")).collect()[0][0] + 1)
    cut = SequenceSettings(length=1000 if kind == "item2vec" else LENGTH, targets=3 if kind == "caser" else None)
    ordered = SequenceShards(sequences(events, cut), cut.length, cut.targets)
    return write_shards(events, folder, items=items, groups=1, of_group=1, seed=0, ordered=ordered)


def plain_sasrec(peer: str, case: str, interactions: str, given: Given) -> Row:
    """SASRec with binary cross-entropy in torch alone: rectangles of 128 users and 50 places, padded on the left, and
    Adam over whole tables. Counts real targets."""
    import torch
    from torch import nn

    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    table = pq.read_table(interactions).sort_by([("user_id", "ascending"), ("position", "ascending")])
    user, item = table["user_id"].to_numpy(), table["item_id"].to_numpy() + 1
    parts = [part for part in np.split(item, np.flatnonzero(np.diff(user)) + 1) if len(part) > 1]
    n_items, d = int(item.max()), 64

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.items, self.places = nn.Embedding(n_items + 1, d, padding_idx=0), nn.Embedding(LENGTH, d)
            layer = nn.TransformerEncoderLayer(d, 1, d, 0.5, batch_first=True, norm_first=True)
            self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.norm, self.drop = nn.LayerNorm(d), nn.Dropout(0.5)
            self.future = torch.triu(torch.ones(LENGTH, LENGTH, dtype=torch.bool), 1)

        def forward(self, shown: torch.Tensor, wanted: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
            x = self.drop(self.items(shown) * d**0.5 + self.places.weight)
            x = self.norm(self.blocks(x, mask=self.future))
            real = wanted > 0
            right, wrong = ((x * self.items(each)).sum(-1)[real] for each in (wanted, drawn))
            return (nn.functional.softplus(-right) + nn.functional.softplus(wrong)).mean()

    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    rng, speeds = np.random.default_rng(0), []
    for _ in range(given.warm_up + given.runs):
        order, started, targets = rng.permutation(len(parts)), time.perf_counter(), 0
        for first in range(0, len(order), 128):
            some = [parts[at][-LENGTH - 1 :] for at in order[first : first + 128]]
            shown, wanted = np.zeros((2, len(some), LENGTH), np.int64)
            for row, part in enumerate(some):
                shown[row, -len(part) + 1 :], wanted[row, -len(part) + 1 :] = part[:-1], part[1:]
            drawn = rng.integers(1, n_items + 1, wanted.shape)
            optimizer.zero_grad()
            network(*map(torch.from_numpy, (shown, wanted, drawn))).backward()
            optimizer.step()
            targets += int((wanted > 0).sum())
        speeds.append(targets / (time.perf_counter() - started))
    return {"examples_per_second": median(speeds[given.warm_up :])}
