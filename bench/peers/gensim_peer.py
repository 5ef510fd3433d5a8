"""gensim's word2vec on what each user did: python gensim_peer.py CASE PAIRS.npy WARM_UP RUNS THREADS.

Prints a line of JSON.
"""

import json
import sys
import time
from statistics import median

import numpy as np
from gensim.models.callbacks import CallbackAny2Vec
from gensim.models.word2vec import FAST_VERSION, Word2Vec


class Epochs(CallbackAny2Vec):
    def __init__(self):
        self.seconds = []

    def on_epoch_begin(self, model):
        self.started = time.perf_counter()

    def on_epoch_end(self, model):
        self.seconds.append(time.perf_counter() - self.started)


warm_up, runs, threads = map(int, sys.argv[3:6])
user, item = np.load(sys.argv[2]).T
order = np.argsort(user, kind="stable")
bags = np.split(item[order], np.flatnonzero(np.diff(user[order])) + 1)
assert FAST_VERSION >= 0, "expected gensim's compiled loops"
epochs = Epochs()
Word2Vec(
    [[str(each) for each in bag] for bag in bags],
    sg=1,
    hs=0,
    vector_size=64,
    window=10,
    negative=5,
    sample=0,
    min_count=1,
    workers=threads,
    epochs=warm_up + runs,
    callbacks=[epochs],
)
print(json.dumps({"examples_per_second": len(item) / median(epochs.seconds[warm_up:])}))
