"""Ranking metrics in the peers' environment.

python metrics_peer.py PEER LISTS.parquet RELEVANT.parquet CUTOFFS WARM_UP RUNS reads both tables (polars, since their
numpy is older than any pyarrow), measures six metrics, and prints a line of JSON: the median seconds of the runs after
those that warm up, and ndcg@10. Threads are as many as the environment says.
"""

import importlib.machinery
import json
import sys
import time
import types
from statistics import median

for name in ("ir_datasets", "seaborn", "fastparquet"):  # ranx imports them for what is not done here
    sys.modules[name] = module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)

import pandas as pd  # noqa: E402
import polars as pl  # noqa: E402


def frame(path, **names):
    """A pandas table with other names of columns."""
    table = pl.read_parquet(path)
    return pd.DataFrame({new: table[old].to_numpy() for new, old in names.items()})


def rectools(lists, relevant, cutoffs):
    from rectools.metrics import MAP, MRR, NDCG, HitRate, Precision, Recall, calc_metrics

    reco = frame(lists, user_id="user", item_id="item", rank="rank")
    truth = frame(relevant, user_id="user", item_id="item")
    kinds = {"ndcg": NDCG, "recall": Recall, "hit_rate": HitRate, "map": MAP, "mrr": MRR, "precision": Precision}
    metrics = {f"{name}@{k}": kind(k=k) for name, kind in kinds.items() for k in cutoffs}
    return calc_metrics(metrics, reco, truth)["ndcg@10"]


def ranx(lists, relevant, cutoffs):
    from ranx import Qrels, Run, evaluate

    run = frame(lists, q_id="user", doc_id="item", score="rank")
    run["score"] = 1.0 / run["score"]
    qrels = frame(relevant, q_id="user", doc_id="item").assign(score=1)
    for table in (run, qrels):
        for name in ("q_id", "doc_id"):
            table[name] = table[name].astype(str)
    names = [f"{name}@{k}" for name in ("ndcg", "recall", "hit_rate", "map", "mrr", "precision") for k in cutoffs]
    found = evaluate(Qrels.from_df(qrels), Run.from_df(run), names, make_comparable=True)
    return float(found["ndcg@10"])


def replay(lists, relevant, cutoffs):
    from replay.metrics import MAP, MRR, NDCG, HitRate, OfflineMetrics, Precision, Recall

    reco = pl.read_parquet(lists).select(query_id="user", item_id="item", rating=1.0 / pl.col("rank"))
    truth = pl.read_parquet(relevant).select(query_id="user", item_id="item")
    kinds = (NDCG, Recall, HitRate, MAP, MRR, Precision)
    return OfflineMetrics([kind(cutoffs) for kind in kinds])(reco, truth)["NDCG@10"]


peer, paths, cutoffs = sys.argv[1], sys.argv[2:4], json.loads(sys.argv[4])
warm_up, runs = map(int, sys.argv[5:7])
seconds = []
for _ in range(warm_up + runs):
    started = time.perf_counter()
    ndcg = {"rectools": rectools, "ranx": ranx, "replay": replay}[peer](*paths, cutoffs)
    seconds.append(time.perf_counter() - started)
print(json.dumps({"seconds": median(seconds[warm_up:]), "ndcg@10": float(ndcg)}))
