"""EASE of RecTools in the peers' environment.

python rectools_peer.py ROWS.parquet K WARM_UP RUNS fits to rows (user_id, item_id), recommends K items to every user,
and prints a line of JSON: the median seconds of both, of the runs after those that warm up.
"""

import json
import sys
import time
from statistics import median

import pandas as pd
import polars as pl
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import EASEModel


def run(rows, k):
    """Seconds of the fit and of the lists."""
    began = time.perf_counter()
    dataset = Dataset.construct(rows)
    model = EASEModel(regularization=200.0)
    model.fit(dataset)
    fitted = time.perf_counter()
    model.recommend(rows[Columns.User].unique(), dataset, k=k, filter_viewed=True)
    return fitted - began, time.perf_counter() - fitted


path, k, warm_up, runs = sys.argv[1], *map(int, sys.argv[2:])
table = pl.read_parquet(path)
rows = pd.DataFrame({name: table[name].to_numpy() for name in ("user_id", "item_id")})
rows["weight"], rows["datetime"] = 1.0, pd.Timestamp("2020-01-01")
seconds = [run(rows, k) for _ in range(warm_up + runs)][warm_up:]
fit, recommend = map(median, zip(*seconds, strict=True))
print(json.dumps({"fit": fit, "recommend": recommend}))
