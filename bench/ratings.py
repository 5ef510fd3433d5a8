"""Ratings with the skew of real ones: power-law items, log-normal users, tastes to be learned."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

GENRES = 20
FILES = 16


@dataclass(frozen=True)
class Size:
    """How much there is of everything; `ratings` is met within a percent."""

    users: int
    items: int
    ratings: int


SIZES = {
    "2M": Size(20_000, 9_000, 2_000_000),
    "20M": Size(138_000, 27_000, 20_000_000),
    "100M": Size(600_000, 60_000, 100_000_000),
}


def ratings_folder(size: Size) -> Path:
    """Parquet files of (user int, item int, rating float), made once and kept in the folder for temporary files."""
    folder = Path(tempfile.gettempdir()) / f"sparkrec-bench-{size.users}-{size.items}-{size.ratings}"
    if not (folder / "_DONE").exists():
        folder.mkdir(exist_ok=True)
        for part, users in enumerate(np.array_split(np.arange(size.users), FILES)):
            pq.write_table(_ratings_of(size, users, part), folder / f"part-{part:02}.parquet")
        (folder / "_DONE").touch()
    return folder


def _ratings_of(size: Size, users: np.ndarray, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    popularity = 1.0 / np.arange(10, size.items + 10)  # rank^-1, its head flattened
    genre = np.arange(size.items) * 7919 % GENRES
    activity = rng.lognormal(0, 1, len(users))
    n = np.maximum(20, activity / activity.sum() * size.ratings * len(users) / size.users).astype(int)
    n = np.minimum(n, size.items // 4)
    taste = rng.random((len(users), GENRES)).argsort(1)[:, :3]
    row = np.repeat(np.arange(len(users)), n)
    want = len(row)
    # Items by inverse transform within the favourite genres (three of four times) or anywhere; drawn again where a
    # user has one twice, a few rounds.
    cumulative = {g: (np.flatnonzero(genre == g), np.cumsum(popularity[genre == g])) for g in range(GENRES)}
    everything = np.cumsum(popularity)
    keys = np.zeros(0, np.int64)
    missing = row
    for _ in range(12):
        favourite = taste[missing, rng.integers(0, 3, len(missing))]
        item = np.searchsorted(everything, rng.random(len(missing)) * everything[-1])
        inside = rng.random(len(missing)) < 0.75
        for g in range(GENRES):
            at = np.flatnonzero(inside & (favourite == g))
            ids, total = cumulative[g]
            item[at] = ids[np.searchsorted(total, rng.random(len(at)) * total[-1])]
        keys = np.unique(np.concatenate((keys, missing * size.items + item)))
        have = np.bincount(keys // size.items, minlength=len(users))
        missing = np.repeat(np.arange(len(users)), np.maximum(n - have, 0))
        if len(missing) < want // 1000:
            break
    row, item = np.divmod(keys, size.items)
    liked = (taste[row] == genre[item][:, None]).any(1)
    rating = np.clip(np.round(3 + 1.2 * liked + rng.normal(0, 0.8, len(row))), 1, 5)
    return pa.table(
        {"user": users[row].astype(np.int32), "item": item.astype(np.int32), "rating": rating.astype(np.float32)}
    ).take(rng.permutation(len(row)))
