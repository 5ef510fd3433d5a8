"""cornac's BPR: python cornac_peer.py bpr PAIRS.npy WARM_UP RUNS THREADS. Prints a line of JSON.

It does not say when an epoch ends: an epoch is half of what a fit of three takes longer than a fit of one.
"""

import json
import sys
import time
from statistics import median

import numpy as np
from cornac.data import Dataset
from cornac.models import BPR


def main(interactions: str, warm_up: int, runs: int, threads: int) -> None:
    pairs = np.load(interactions)
    log = Dataset.from_uir([(user, item, 1.0) for user, item in pairs.tolist()])

    def seconds(epochs: int) -> float:
        model = BPR(k=64, max_iter=epochs, num_threads=threads, verbose=False, seed=None)
        started = time.perf_counter()
        model.fit(log)
        return time.perf_counter() - started

    for _ in range(warm_up):
        seconds(1)
    each = median((seconds(3) - seconds(1)) / 2 for _ in range(runs))
    print(json.dumps({"examples_per_second": len(pairs) / each}))


main(sys.argv[2], *map(int, sys.argv[3:6]))
