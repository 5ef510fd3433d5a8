"""Shards and processes without Spark."""

import threading

import numpy as np
import pyarrow as pa
import pytest
import torch

from sparkrec import storage
from sparkrec.config import TrainingSettings
from sparkrec.shards import SCHEMA, SEQUENCES, WITH_FEATURES, Folder, Shards
from sparkrec.training.collective import Alone, Collective
from sparkrec.training.loop import Trainer, train


def plain(**training):
    """TrainingSettings that leave nothing to the data."""
    left = {"loss": "bce", "negatives": 4, "epochs": 20, "batch": 2048, "optimizer": "adam", "learning_rate": 1e-3}
    return TrainingSettings(**{**left, "init_scale": 0.01, "user_l2": 0.0, "item_l2": 0.0, **training})


def planted(n_users=60, n_items=80, tastes=4, each=12, seed=0):
    """Users and items of a taste: what a user has is of it, nearly always. Returns (users, items, taste of item)."""
    rng = np.random.default_rng(seed)
    taste = np.arange(n_items) % tastes
    users, items = [], []
    for user in range(n_users):
        liked = np.where(taste == user % tastes, 1.0, 0.02)
        chosen = rng.choice(n_items, min(each, n_items // tastes - 2), replace=False, p=liked / liked.sum())
        users += [user] * len(chosen)
        items += chosen.tolist()
    return np.array(users), np.array(items), taste


def liked_of_first(users, items, taste, tastes=4, k=5):
    """How large a share of the first k unseen items of each user, by scores (users, items), is of the user's taste."""
    n_users = users.max() + 1
    liked = taste == (np.arange(n_users) % tastes)[:, None]
    unseen = np.ones(liked.shape, bool)
    unseen[users, items] = False

    def share(scores):
        best = np.where(unseen, scores, -np.inf).argsort(1)[:, ::-1][:, :k]
        return np.take_along_axis(liked, best, 1).mean()

    return share


def write_shards(folder, users, items, n_items, *, of_group=1, groups=1, values=None, known=None, ordered=None):
    """As `spark.data.shards` writes them; a user is in the shard `user % n`.

    known    layout, entries (and times) of the examples, and a table of those of the items, in a dict
    ordered  sequences (user, items), length and targets, in a dict
    """
    n, files = groups * of_group, Folder(str(folder))
    values = np.ones(len(users)) if values is None else values
    shards = []
    for shard in range(n):
        mine = np.flatnonzero(users % n == shard)
        mine = mine[np.lexsort((items[mine], users[mine]))]
        columns = {"user": users[mine], "item": items[mine], "value": values[mine], "confidence": np.ones(len(mine))}
        if known:
            rows, weights = known["entries"].take(mine).arrow()
            times = known.get("times", np.zeros(len(users), np.int64))[mine]
            columns |= {"timestamp": times, "rows": rows, "weights": weights}
        table = pa.table(columns).cast(WITH_FEATURES if known else SCHEMA)
        shards.append({**files.write(f"shard-{shard:05}.parquet", table), "users": len(np.unique(users[mine]))})
    counts = pa.table({"count": np.bincount(items, minlength=n_items).astype(np.int64)})
    manifest = {
        "items": n_items,
        "groups": groups,
        "shards": shards,
        "item_counts": files.write("items.parquet", counts),
    }
    if known:
        manifest["item_features"] = files.write("item_features.parquet", known["items"])
        manifest |= {"layout": known["layout"].to_json(), "until": int(known.get("times", np.zeros(1)).max())}
    if ordered:
        manifest |= {"sequences": [], "events": sum(len(each) for _, each in ordered["sequences"])}
        manifest |= {"length": ordered["length"], "targets": ordered.get("targets")}
        for shard in range(n):
            mine = sorted((user, list(each)) for user, each in ordered["sequences"] if user % n == shard)
            table = pa.table({"user": [user for user, _ in mine], "items": [each for _, each in mine]}, SEQUENCES)
            manifest["sequences"].append(files.write(f"sequences-{shard:05}.parquet", table))
    storage.write_json(f"{folder}/manifest.json", manifest)
    return Shards.open(str(folder))


def cut_off(job):
    """Train, and end in the middle of the third epoch."""

    class Cut(Exception):
        pass

    epoch = Trainer._epoch

    def cut(self, number, steps):
        if number == 2:
            self.stepper.step(next(self.batches.epoch(number)), 0.1)
            raise Cut
        return epoch(self, number, steps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_epoch", cut)
        with pytest.raises(Cut):
            train(job, Alone())


class InThreads(Collective):
    """Processes that are threads."""

    def __init__(self, process_rank, size, shared):
        super().__init__()
        self.process_rank = self.local_rank = process_rank
        self.size, self.shared = size, shared

    def _exchange(self, values):
        self.shared["slots"][self.process_rank] = values.clone()
        self.shared["barrier"].wait()
        everyone = [each.clone() for each in self.shared["slots"]]
        self.shared["barrier"].wait()
        return everyone

    def _broadcast(self, values):
        return self._exchange(values)[0]

    def _sum(self, values):
        return torch.stack(self._exchange(values)).sum(0)

    def _gather(self, values):
        return self._exchange(values)


def in_threads(function, size):
    """What function(collective) returns in each of `size` threads."""
    shared = {"slots": [None] * size, "barrier": threading.Barrier(size, timeout=60)}
    results, errors = [None] * size, []

    def work(rank):
        try:
            results[rank] = function(InThreads(rank, size, shared))
        except BaseException as error:
            errors.append(error)
            shared["barrier"].abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results
