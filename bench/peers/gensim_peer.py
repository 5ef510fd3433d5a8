"""gensim's word2vec on what each user did: python gensim_peer.py CASE PAIRS.npy quick|whole. Prints a line of JSON."""

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
    workers=2,
    epochs=2 if sys.argv[3] == "quick" else 5,
    callbacks=[epochs],
)
print(json.dumps({"examples_per_second": round(len(item) / median(epochs.seconds[1:]))}))
