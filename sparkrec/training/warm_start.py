"""A model that starts from what others have learned: their published tables, and the heads they came with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from sparkrec import storage
from sparkrec.errors import InputError
from sparkrec.kernels.arrays import F32, I64
from sparkrec.kernels.csr import located
from sparkrec.models.base.field_model import FieldModel
from sparkrec.models.base.recommender import Recommender, Sizes
from sparkrec.models.base.scorer import HEAD_FILE, Head
from sparkrec.models.gmf import GMF, GmfSettings


def start_from(model: Recommender, folders: Mapping[str, str], users: I64) -> None:
    """Take over what the models in `folders` (by kind) know of `users` (n,) and all items.

    Raises InputError where they are of other sizes, or do not know a user.
    """
    if isinstance(model, FieldModel):
        for kind, folder in folders.items():
            _take_over(model, kind, folder, users)
        return
    trained = {kind: _trained(kind, folder, users) for kind, folder in folders.items()}
    try:
        model.start_from(trained)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"start_from: {error}") from None


def _trained(kind: str, folder: str, users: I64) -> Recommender:
    """With the rows of `users` in their order, and of all items by id."""
    x, w = _rows(f"{folder}/users", "user", users), _rows(f"{folder}/items", "item")
    with torch.no_grad():
        if kind == "gmf":  # h is in the users' factors, and c in a column of them
            d = x.shape[1] - 1
            model: Recommender = GMF(GmfSettings(dim=d), Sizes(len(x), len(w)))
            assert isinstance(model, GMF)
            model.out.weight.fill_(1.0)
            model.out.bias.copy_(torch.from_numpy(x[:1, d]) if len(x) else torch.zeros(1))
            x, w = x[:, :d], w[:, :d]
        else:
            head = Head.from_bytes(storage.read(f"{folder}/{HEAD_FILE}"))
            model = head.model_settings.network(Sizes(len(x), len(w)))
            model.load_state_dict(
                {name: torch.from_numpy(each.copy()) for name, each in head.weights.items()}, strict=False
            )
        model.users.weight.copy_(torch.from_numpy(x.copy()))
        model.items.weight.copy_(torch.from_numpy(w.copy()))
    return model


def _take_over(model: FieldModel, kind: str, folder: str, users: I64) -> None:
    """Weights and vectors of users, items and features: of an mf biases and factors, and features stay as they are."""
    x, w = _rows(f"{folder}/users", "user", users), _rows(f"{folder}/items", "item")
    features: F32 | None = None
    if kind == "mf":  # (p, b, 1) and (q, 1, b + c)
        x, w = np.roll(x[:, :-1], 1, axis=1), np.roll(np.delete(w, -2, axis=1), 1, axis=1)
    else:
        head = (
            Head.from_bytes(storage.read(f"{folder}/{HEAD_FILE}")) if storage.exists(f"{folder}/{HEAD_FILE}") else None
        )
        if head is None or head.layout is None:
            raise InputError(
                f"start_from: found {kind}, expected mf or a model of features, which have vectors to take"
            )
        if head.layout != model.layout:
            found, expected = head.layout.names, model.layout.names
            raise InputError(
                f"start_from: the {kind} knows the fields {found}, expected {expected}, of the same values"
            )
        w, features = w[:, : head.row], head.weights["features"]
    if x.shape[1] != model.row:
        raise InputError(
            f"start_from: found a {kind} of dim {x.shape[1] - 1}, expected {model.row - 1}: give both the same dim"
        )
    with torch.no_grad():
        model.users.weight.copy_(torch.from_numpy(np.ascontiguousarray(x)))
        model.items.weight[: model.n_items] = torch.from_numpy(np.ascontiguousarray(w))
        if features is not None:
            model.items.weight[model.n_items :] = torch.from_numpy(features.copy())


def _rows(folder: str, key: str, wanted: I64 | None = None) -> F32:
    """Rows of the ids in `wanted`, or of all in their order; one file after the other."""
    ids, rows = [], []
    for table in storage.read_parquet(folder, [key, "value"]):
        found = table[key].to_numpy()
        values = table["value"].combine_chunks()
        if len(found):
            keep = slice(None) if wanted is None else np.isin(found, wanted)
            ids.append(found[keep])
            rows.append(values.flatten().to_numpy(zero_copy_only=False).reshape(len(found), -1)[keep])
    every = np.concatenate([np.zeros(0, np.int64), *ids])
    order = np.argsort(every)
    matrix: F32 = np.concatenate(rows)[order]
    if wanted is None:
        return matrix
    at, there = located(wanted, every[order])
    if not there.all():
        raise InputError(f"start_from: user number {wanted[int(np.argmin(there))]} is not in {folder}")
    chosen: F32 = matrix[at]
    return chosen
