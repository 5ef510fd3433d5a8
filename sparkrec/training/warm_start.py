"""A model that starts from what others have learned: from published tables of other kinds, which it takes in its own
way, or from all that an earlier model of the same kind had learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparkrec import storage
from sparkrec.config import Parent
from sparkrec.errors import InputError
from sparkrec.kernels.arrays import F32, I64
from sparkrec.kernels.csr import located
from sparkrec.models.base.published import SCORER_FILE, Published
from sparkrec.models.base.recommender import Recommender
from sparkrec.models.base.scorers import load_scorer
from sparkrec.training.checkpoints import Checkpoints
from sparkrec.training.optimizers import Optimizer
from sparkrec.training.step import Stepper


class Earlier(NamedTuple):
    """What an earlier model of the same kind and shape had learned."""

    folder: str
    """Of its last checkpoint, in the folder of its run."""
    rows: I64
    """(m,) of each row of the table of items, with what is behind them, the one that it was in that model; -1: it is
    new."""
    same_optimizer: bool
    """Whether what its optimiser kept of each row means the same here."""


def go_on(stepper: Stepper, users: I64, earlier: Earlier) -> None:
    """Take over the rows of users and items that the earlier model had, its dense layers, and what its optimiser kept
    of them. What is new stays as it is; what is gone is not read.

    users  ids of the rows of this process's table of users
    """
    model = stepper.model
    shared = Checkpoints.read(f"{earlier.folder}/shared.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(shared[f"dense.{name}"])
        _take(model.items.weight, shared["items.weight"], earlier.rows)
        if earlier.same_optimizer:
            _take_state(stepper.item_optimizer, "items.optimizer.", shared, earlier.rows)
            _take_state(stepper.dense.optimizer, "optimizer.", shared, np.zeros(1, np.int64))
        for name in storage.files(earlier.folder):
            if not name.startswith("users-"):
                continue
            part = Checkpoints.read(f"{earlier.folder}/{name}")
            ids = part["ids"].numpy()
            order = np.argsort(ids)
            at, is_known = located(users, ids[order])
            rows = np.full(len(users), -1)
            rows[is_known] = order[at[is_known]]
            _take(model.users.weight, part["weight"], rows)
            if earlier.same_optimizer:
                _take_state(stepper.user_optimizer, "optimizer.", part, rows)


def _take(own: Tensor, theirs: Tensor, rows: I64) -> None:
    """Rows of another table where there are such."""
    known = np.flatnonzero(rows >= 0)
    own[torch.from_numpy(known)] = theirs[torch.from_numpy(rows[known])].to(own.device)


def _take_state(optimizer: Optimizer, prefix: str, tensors: dict[str, Tensor], rows: I64) -> None:
    """What an optimiser of the same rule kept of these rows. Of how often it has moved rows of the table each file
    says the same."""
    for at, own in enumerate(optimizer.state):
        _take(own, tensors[f"{prefix}state{at}"], rows)
    optimizer.steps = int(tensors[f"{prefix}steps"])
    optimizer.moved.fill_(optimizer.steps)


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
