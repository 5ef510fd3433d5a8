"""cornac's BPR, an epoch: python cornac_peer.py bpr PAIRS.npy quick|whole. Prints a line of JSON."""

import json
import sys
import time

import numpy as np
from cornac.data import Dataset
from cornac.models import BPR


def main(interactions: str, epochs: int) -> None:
    pairs = np.load(interactions)
    log = Dataset.from_uir([(user, item, 1.0) for user, item in pairs.tolist()])

    def seconds(n: int) -> float:
        model = BPR(k=64, max_iter=n, num_threads=2, verbose=False, seed=None)
        started = time.perf_counter()
        model.fit(log)
        return time.perf_counter() - started

    seconds(1)
    each = (seconds(1 + epochs) - seconds(1)) / epochs
    print(json.dumps({"examples_per_second": round(len(pairs) / each)}))


main(sys.argv[2], 3 if sys.argv[3] == "quick" else 10)
