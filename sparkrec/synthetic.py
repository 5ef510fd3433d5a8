"""A generated interaction log with everything that a real one has: tastes, popularity skew, order, dirt."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

GENRES = ("jazz", "folk", "techno", "opera", "metal", "soul", "ambient", "polka")
_EVENTS = ("view", "like", "buy")


@dataclass(frozen=True)
class LogShape:
    """Size and planted structure of a log."""

    users: int = 1500
    items: int = 400
    events_per_user: int = 40
    """Mean; users differ by a log-normal factor."""
    loyalty: float = 0.85
    """Share of a user's events in the two genres that are the user's taste."""
    skew: float = 0.8
    """Exponent of item popularity within a genre."""
    follow: float = 0.3
    """Chance that an event is the item that follows the one before."""
    duplicates: float = 0.02
    """Share of rows that appear twice."""
    broken: float = 0.01
    """Share of rows that cannot be read."""
    seed: int = 0


def item_name(item: int) -> str:
    """Name of an item: its genre is its number modulo the number of genres."""
    return f"{GENRES[item % len(GENRES)]} album {item // len(GENRES) + 1}"


def draw_events(shape: LogShape) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """user, item, event kind (index) and timestamp (seconds) of each event, all (n,) int64, in time order by user."""
    rng = np.random.default_rng(shape.seed)
    genre_of = np.arange(shape.items) % len(GENRES)
    in_genre = [np.flatnonzero(genre_of == genre) for genre in range(len(GENRES))]
    users, items = [], []
    for user in range(shape.users):
        n = max(3, int(shape.events_per_user * rng.lognormal(0, 0.6) / np.exp(0.18)))
        tastes = rng.choice(len(GENRES), size=2, replace=False)
        loyal = rng.random(n) < shape.loyalty
        genres = np.where(loyal, rng.choice(tastes, size=n, p=(0.7, 0.3)), rng.integers(len(GENRES), size=n))
        chosen = np.empty(n, dtype=np.int64)
        for position, genre in enumerate(genres):
            shelf = in_genre[genre]
            if position and rng.random() < shape.follow:
                chosen[position] = (chosen[position - 1] + len(GENRES)) % shape.items  # next of the same genre
            else:
                weight = np.arange(1, len(shelf) + 1) ** -shape.skew
                chosen[position] = rng.choice(shelf, p=weight / weight.sum())
        users.append(np.full(n, user))
        items.append(chosen)
    all_users, all_items = np.concatenate(users), np.concatenate(items)
    n = len(all_users)
    kind = rng.choice(len(_EVENTS), size=n, p=(0.7, 0.2, 0.1))
    gaps = rng.exponential(6 * 3600, size=n).astype(np.int64) + 1
    return all_users, all_items, kind, 1_700_000_000 + np.cumsum(gaps) % (300 * 86_400) + 90 * np.arange(n)


def write_log(folder: Path, shape: LogShape = LogShape()) -> tuple[Path, Path]:
    """Write `events.csv` (user, item, weight, time, event) and `items.csv` (item, name, genre); returns both paths."""
    rng = np.random.default_rng(shape.seed + 1)
    user, item, kind, seconds = draw_events(shape)
    rows = [
        [f"user-{u}", f"item-{i}", "1", str(t), _EVENTS[k]]
        for u, i, t, k in zip(user, item, seconds, kind, strict=True)
    ]
    rows += [rows[i] for i in rng.choice(len(rows), size=int(shape.duplicates * len(rows)), replace=False)]
    dirt = [(0, ""), (1, ""), (2, "NaN"), (2, "1e300"), (2, "many"), (3, "yesterday"), (3, "")]
    for n, row in enumerate(rng.choice(len(rows), size=int(shape.broken * len(rows)), replace=False)):
        column, value = dirt[n % len(dirt)]
        rows[row] = [*rows[row][:column], value, *rows[row][column + 1 :]]
    order = rng.permutation(len(rows))
    folder.mkdir(parents=True, exist_ok=True)
    events, items = folder / "events.csv", folder / "items.csv"
    _write_csv(events, ["user", "item", "weight", "time", "event"], [rows[i] for i in order])
    _write_csv(
        items,
        ["item", "name", "genre"],
        [[f"item-{i}", item_name(i), GENRES[i % len(GENRES)]] for i in range(shape.items)],
    )
    return events, items


def _write_csv(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
