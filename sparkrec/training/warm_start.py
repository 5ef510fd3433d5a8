"""A model that starts from what others have learned: reads their published tables and hands them over."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparkrec import storage
from sparkrec.config import Parent
from sparkrec.errors import InputError
from sparkrec.kernels.arrays import F32, I64
from sparkrec.kernels.csr import located
from sparkrec.models.base.published import SCORER_FILE, Published
from sparkrec.models.base.recommender import Recommender
from sparkrec.models.base.scorers import load_scorer


def start_from(model: Recommender, parents: Sequence[Parent], users: I64) -> None:
    """Take over what the parents know of `users` (n,) and all items.

    Raises InputError where they are models that it cannot start from, or of other sizes, or do not know a user.
    """
    try:
        model.start_from([(_module(parent), _published(parent, users)) for parent in parents])
    except (ValueError, RuntimeError) as error:
        raise InputError(f"start_from: {error}") from None


def _module(parent: Parent) -> type[Recommender]:
    module = parent.settings.declaration.module
    if module is None:
        raise InputError(f"start_from: found a {parent.settings.kind}, which Spark fits, expected a network")
    return module


def _published(parent: Parent, users: I64) -> Published:
    settings, folder = parent
    x, w = _rows(f"{folder}/users", "user", users), _rows(f"{folder}/items", "item")
    if not storage.exists(f"{folder}/{SCORER_FILE}"):
        return Published(settings, x, w, {}, None)
    scorer = load_scorer(storage.read(f"{folder}/{SCORER_FILE}"))
    return Published(settings, x, w, scorer.weights, scorer.sizes.layout if scorer.sees == "fields" else None)


def _rows(folder: str, key: str, wanted: I64 | None = None) -> F32:
    """The rows of a published table: of the ids in `wanted`, or of all in their order."""
    ids, rows = [], []
    for table in storage.read_parquet(folder, [key, "value"]):  # one file after the other
        keys = table[key].to_numpy()
        values = table["value"].combine_chunks()
        if len(keys):
            keep = slice(None) if wanted is None else np.isin(keys, wanted)
            ids.append(keys[keep])
            rows.append(values.flatten().to_numpy(zero_copy_only=False).reshape(len(keys), -1)[keep])
    every = np.concatenate([np.zeros(0, np.int64), *ids])
    order = np.argsort(every)
    matrix: F32 = np.concatenate(rows)[order]
    if wanted is None:
        return matrix
    at, is_known = located(wanted, every[order])
    if not is_known.all():
        raise InputError(f"start_from: user number {wanted[int(np.argmin(is_known))]} is not in {folder}")
    chosen: F32 = matrix[at]
    return chosen
