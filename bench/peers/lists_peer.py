"""Models that are fitted by a formula, of the libraries in the peers' environment.

python lists_peer.py SYSTEM KIND ROWS.parquet K WARM_UP RUNS THREADS fits to rows (user_id, item_id), recommends K items
to every user that these do not have, and prints a line of JSON: the median seconds of both, of the runs after those
that warm up.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

system, kind, path, k, warm_up, runs, threads = [*sys.argv[1:4], *map(int, sys.argv[4:])]
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "LK_NUM_THREADS", "NUMBA_NUM_THREADS"), str(threads))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import polars as pl  # noqa: E402


def rectools(rows):
    """Seconds of the fit and of the lists."""
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import EASEModel, PopularModel

    rows = rows.assign(weight=1.0, datetime=pd.Timestamp("2020-01-01"))
    began = time.perf_counter()
    dataset = Dataset.construct(rows)
    model = {"ease": lambda: EASEModel(regularization=200.0), "popularity": PopularModel}[kind]()
    model.fit(dataset)
    fitted = time.perf_counter()
    model.recommend(rows[Columns.User].unique(), dataset, k=k, filter_viewed=True)
    return fitted - began, time.perf_counter() - fitted


def lenskit(rows):
    """Likewise."""
    import lenskit
    from lenskit.als import ImplicitMFScorer
    from lenskit.basic import PopScorer
    from lenskit.batch import recommend
    from lenskit.data import from_interactions_df
    from lenskit.knn import EASEScorer, ItemKNNScorer

    scorer = {
        "als": lambda: ImplicitMFScorer(embedding_size=64, epochs=15, user_embeddings="prefer"),
        "itemknn": lambda: ItemKNNScorer(max_nbrs=k, save_nbrs=k, feedback="implicit"),
        "ease": EASEScorer,
        "popularity": PopScorer,
    }[kind]()
    began = time.perf_counter()
    dataset = from_interactions_df(rows)
    pipeline = lenskit.topn_pipeline(scorer, n=k)
    pipeline.train(dataset)
    fitted = time.perf_counter()
    recommend(pipeline, rows["user_id"].unique(), n=k, n_jobs=1)
    return fitted - began, time.perf_counter() - fitted


def recbole(rows):
    """Likewise; its fit begins after rows are read."""
    import torch
    import without_ray  # noqa: F401
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "log").mkdir()
        named = rows.rename(columns={name: f"{name}:token" for name in rows.columns})
        named.to_csv(Path(folder, "log", "log.inter"), sep="\t", index=False)
        settings = {
            "data_path": folder,
            "checkpoint_dir": folder,
            "load_col": {"inter": list(rows.columns)},
            # RecBole fits only where there is something to validate and test on, too: a handful of rows
            "eval_args": {"split": {"RS": [0.99999, 0.000005, 0.000005]}, "order": "RO", "mode": "full"},
            "use_gpu": False,
            "show_progress": False,
            "worker": 0,
            "state": "ERROR",
            "k": k,
            "reg_weight": 200.0,
        }
        name = {"itemknn": "ItemKNN", "ease": "EASE"}[kind]
        config = Config(model=name, dataset="log", config_dict=settings)
        dataset = create_dataset(config)
        began = time.perf_counter()
        train, _, _ = data_preparation(config, dataset)
        model = get_model(name)(config, train.dataset)
        fitted = time.perf_counter()
        seen = train.dataset.inter_matrix(form="csr")
        for users in np.array_split(np.arange(1, train.dataset.user_num), 16):
            scores = model.full_sort_predict({"user_id": torch.from_numpy(users)}).view(len(users), -1)
            scores[torch.from_numpy(seen[users].toarray() > 0)] = -torch.inf
            scores[:, 0] = -torch.inf  # its padding
            scores.topk(k)
        return fitted - began, time.perf_counter() - fitted


table = pl.read_parquet(path)
rows = pd.DataFrame({name: table[name].to_numpy() for name in ("user_id", "item_id")})
run = {"rectools": rectools, "lenskit": lenskit, "recbole": recbole}[system]
seconds = [run(rows) for _ in range(warm_up + runs)][warm_up:]
fit, recommend = map(median, zip(*seconds, strict=True))
print(json.dumps({"fit": fit, "recommend": recommend}))
