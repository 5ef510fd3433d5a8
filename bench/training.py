"""Training: examples a second of an epoch, the median, beside RecBole, implicit, cornac, gensim and plain torch.

On MovieLens 1M (NCF split), NeuMF, BPR-MF and two processes; on Frappe, whose rows have ten fields, FM and DeepFM; on
Amazon Beauty, models of sequences, whose examples are the events that are predicted from those before them, 50 at most;
on Gowalla, item2vec, whose examples are the events; gensim's workers write to one table at will.

An epoch is all that a network costs: drawing negatives, forward, backward, update. NeuMF has 32 factors and layers of
64-32-16-8, four negatives a positive, Adam; an example is a positive or a negative, and a batch counts both. BPR-MF has
64 factors; an example is a triple. FM and DeepFM (128-128-128) have vectors of 10 and batches of 2,048, of which a
third are positives: sparkrec draws two negatives for each in every epoch, RecBole reads them as labelled rows. RecBole
makes a row of 50 places for each event that is to be predicted, and its epochs are cut off after a few batches.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.data import FRAPPE_CONTEXT, public
from bench.measure import CORES, Given, Row, Stopwatch, Treatment, best, show
from bench.sequences import SEQUENCES, plain_sasrec
from bench.sequences import shards as sequence_shards
from bench.spark import session
from sparkrec.errors import ConfigError
from sparkrec.shards import Shards

PEERS = Path(".venv-peers/bin/python")
NEGATIVES = 4
NEUMF: dict[str, Any] = {"kind": "neumf", "dim": 32, "layers": [64, 32, 16, 8]}
BPR: dict[str, Any] = {"kind": "mf", "dim": 64}
FIELDS: dict[str, dict[str, Any]] = {
    "fm": {"kind": "fm", "dim": 10},
    "deepfm": {"kind": "deepfm", "dim": 10, "layers": [128, 128, 128]},
}
PLAIN: dict[str, Any] = {
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "init_scale": 0.01,
    "user_l2": 0.0,
    "item_l2": 0.0,
    "negatives": 0,
}
"""Nothing is left to the data."""
CASES = {
    "neumf_2048": ("recbole",),
    "neumf_65536": ("recbole",),
    "bpr": ("recbole", "implicit", "cornac"),
    "fm": ("recbole",),
    "deepfm": ("recbole",),
    "sasrec_bce": ("torch",),
    "sasrec_ce": ("recbole",),
    "gru4rec": ("recbole",),
    "caser": ("recbole",),
    "item2vec": ("gensim",),
    "horovod2": (),
}


def compare(names: list[str], quick: bool, treatment: Treatment) -> dict[str, Any]:
    """Run all in turn and print a table; a run is an epoch."""
    with tempfile.TemporaryDirectory() as folder:
        interactions = _data("ml-1m-ncf/train")
        return _compare(names, _few_users(interactions, folder) if quick else interactions, treatment)


def _compare(names: list[str], of_films: str, treatment: Treatment) -> dict[str, Any]:
    rows: list[Row] = []
    ratios: dict[str, float] = {}

    def add(case: str, system: str, *way: Any) -> float:
        rows.append({"case": case, "system": system, **best(alike, [way], by="examples_per_second")})
        return float(rows[-1]["examples_per_second"])

    for name in names:
        alike, interactions = treatment, of_films
        if name in FIELDS:
            interactions = _data("frappe/train_positives")
        elif name in SEQUENCES:
            interactions = _data("gowalla/train" if name == "item2vec" else "beauty/interactions")
        if name == "horovod2":
            alike = replace(treatment, threads=(1,))  # a core for each process
            one, two = (add(name, f"sparkrec x {n}", _processes, n, interactions) for n in (1, 2))
            ratios["horovod2/1"] = round(two / one, 2)
            continue
        ours = add(name, "sparkrec", _ours, name, interactions)
        for peer in CASES[name]:
            run = {"implicit": _implicit, "torch": plain_sasrec}.get(peer, _peer)
            ratios[f"{name}/{peer}"] = round(ours / add(name, peer, run, peer, name, interactions), 2)
    show("Examples a second", rows, ("case", "system", "examples_per_second"))
    return {"runs": rows, "ratios": ratios}


def _data(name: str) -> str:
    path = public(name, "training")
    if not PEERS.exists():
        raise ConfigError("bench training needs its peers: run `make bench-peers` first, in the project's folder")
    return path


def _few_users(interactions: str, folder: str) -> str:
    """Those of every eighth user: what all contestants know in a quick comparison."""
    table = pq.read_table(interactions)
    pq.write_table(table.filter(pc.equal(pc.bit_wise_and(table["user_id"], 7), 0)), f"{folder}/train.parquet")
    return f"{folder}/train.parquet"


def _network(case: str, epochs: int, **training: Any) -> Any:
    from sparkrec.config import model_settings

    training = {**PLAIN, "epochs": epochs, **training}
    if case == "bpr":
        own = {"loss": "bpr", "negatives": 1, "batch": 2048}
        return model_settings({**BPR, "training": {**training, **own}})
    if case in SEQUENCES:
        given = SEQUENCES[case]
        own = {"batch": 128, "init_scale": 0.02, **given["training"]}
        return model_settings({**given, "training": {**training, **own}})
    if case in FIELDS:
        own = {"loss": "bce", "negatives": 2, "batch": 2048 // 3}
        return model_settings({**FIELDS[case], "training": {**training, **own}})
    batch = 2048 if case == "neumf_2048" else 65536
    own = {"loss": "bce", "negatives": NEGATIVES, "batch": batch // (1 + NEGATIVES)}
    return model_settings({**NEUMF, "training": {**training, **own}})


def _shards(interactions: str, folder: str, of_group: int) -> Shards:
    """The examples as the pipeline cuts them."""
    from pyspark.sql import functions as F

    from sparkrec.spark.data.shards import write_shards

    rows = session(CORES).read.parquet(interactions).select(
        F.col("user_id").cast("long").alias("user"),
        F.col("item_id").cast("int").alias("item"),
        F.lit(1.0).cast("float").alias("value"),
        F.lit(1.0).cast("float").alias("confidence"),
    )  # fmt: skip
    items = np.arange(rows.agg(F.max("item")).collect()[0][0] + 1)
    return write_shards(rows, folder, items=items, groups=1, of_group=of_group, seed=0)


def _field_shards(interactions: str, folder: str, of_group: int) -> Shards:
    """Uses of apps and their contexts, as the pipeline codes and cuts them."""
    from pyspark.sql import functions as F

    from sparkrec.config import CategoricalField, FeatureSettings
    from sparkrec.shards import ALWAYS, ITEM_FEATURES
    from sparkrec.spark.data.features import encode, fit
    from sparkrec.spark.data.shards import FeatureShards, write_shards

    rows = session(CORES).read.parquet(interactions).select(
        F.col("user").cast("long"),
        F.col("item").cast("int"),
        F.lit(1.0).alias("value"),
        F.lit(1.0).alias("confidence"),
        F.lit(None).cast("timestamp").alias("timestamp"),
        F.struct(*FRAPPE_CONTEXT).alias("context"),
    )  # fmt: skip
    codes = fit(rows, FeatureSettings(context=[CategoricalField(column=name) for name in FRAPPE_CONTEXT]))
    items = np.arange(rows.agg(F.max("item")).collect()[0][0] + 1)
    nothing = [{"item": item, "since": ALWAYS, "rows": b"", "weights": b""} for item in items.tolist()]
    known = FeatureShards(codes.layout, pa.Table.from_pylist(nothing, ITEM_FEATURES))
    examples = encode(rows, codes.of("context"), "the uses")
    return write_shards(examples, folder, items=items, groups=1, of_group=of_group, seed=0, known=known)


def _trained(settings: Any, interactions: str, each: Callable[..., Any] | None = None) -> list[dict[str, Any]]:
    """History of a run, whose processes Spark starts if there are more than one; `each` instead of `train`."""
    from sparkrec.launch import launch
    from sparkrec.training.loop import Job, train

    with tempfile.TemporaryDirectory() as folder:
        if settings.kind in ("sasrec", "gru4rec", "caser", "item2vec"):
            shards = sequence_shards(interactions, f"{folder}/shards", settings.kind)
        else:
            cut = _field_shards if settings.kind in FIELDS else _shards
            shards = cut(interactions, f"{folder}/shards", settings.training.processes)
        if settings.training.processes == 1:
            session(CORES).stop()
        history: list[dict[str, Any]] = launch(
            each or train, Job(settings, shards, None, f"{folder}/run", 0), settings.training
        )["history"]
    return history


def _ours(case: str, interactions: str, given: Given) -> Row:
    epochs = given.warm_up + given.runs
    history = _trained(_network(case, epochs, threads=given.threads), interactions)
    speeds = [entry["examples_per_second"] for entry in history[given.warm_up :]]
    drawn = {"bpr": 1, "sasrec_bce": 1, "item2vec": 5}.get(case, 0)
    # A positive and its negatives are one example there.
    return {"examples_per_second": median(speeds) / (1 + drawn)}


def _processes(n: int, interactions: str, given: Given) -> Row:
    """n Horovod processes of one thread, each on a core of its own, which draws its negatives, too."""

    def on_a_core(job: Any, collective: Any) -> Any:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[collective.process_rank % len(cores)]})
        return train(job, collective)

    from sparkrec.training.loop import train

    epochs = given.warm_up + given.runs
    settings = _network("neumf_65536", epochs, processes=n, threads=given.threads)
    history = _trained(settings, interactions, on_a_core)
    counted = history[given.warm_up :]
    waited = median(entry["waiting_for_others"] for entry in counted)
    sent = history[-1]["bytes_per_step"]
    speed = median(entry["examples_per_second"] for entry in counted)
    return {"examples_per_second": speed, "waited": waited, "bytes_per_step": sent}


def _peer(peer: str, case: str, interactions: str, given: Given) -> Row:
    """One that lives in the peers' environment, told what to do and asked for one line of JSON."""
    script = Path(__file__).resolve().parent / "peers" / f"{peer}_peer.py"
    table = pq.read_table(interactions)
    with tempfile.TemporaryDirectory() as folder:
        pairs = f"{folder}/pairs.npy"  # their numpy is older than any pyarrow that reads these files
        columns = ["user_id", "item_id", *["position"] * ("position" in table.column_names)]
        np.save(pairs, _labelled(table) if case in FIELDS else _columns(table, columns))
        how = [str(each) for each in (given.warm_up, given.runs, given.threads)]
        command = [str(PEERS.absolute()), str(script), case, pairs, *how]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if ended.returncode:
        raise RuntimeError(f"{peer}: {ended.stderr[-2000:]}")
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def _columns(table: pa.Table, names: list[str]) -> np.ndarray:
    return np.stack([table[name].to_numpy() for name in names], axis=1)


def _labelled(table: pa.Table) -> np.ndarray:
    """Each use with its label and ten fields, and two of the same user and context with another item."""
    used = np.tile(_columns(table, ["user", "item", *FRAPPE_CONTEXT]), (3, 1))
    n = len(table)
    used[n:, 1] = np.random.default_rng(0).integers(0, used[:, 1].max() + 1, 2 * n)
    return np.concatenate((np.repeat([1, 0], [n, 2 * n])[:, None], used), axis=1)


def _implicit(peer: str, case: str, interactions: str, given: Given) -> Row:
    import scipy.sparse
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    table = pq.read_table(interactions)
    user, item = table["user_id"].to_numpy(), table["item_id"].to_numpy()
    seen = scipy.sparse.csr_matrix((np.ones(len(user), np.float32), (user, item)))
    seconds: list[float] = []
    watch = Stopwatch()
    epochs = given.warm_up + given.runs
    model = BayesianPersonalizedRanking(factors=64, iterations=epochs, num_threads=given.threads, random_state=0)
    watch.seconds()
    model.fit(seen, show_progress=False, callback=lambda *_: seconds.append(watch.seconds()))
    return {"examples_per_second": len(user) / median(seconds[given.warm_up :])}
