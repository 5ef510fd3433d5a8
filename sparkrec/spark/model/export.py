"""From a fitted model to a folder that answers without Spark: `sparkrec.exported` says what is in it.

Everybody is asked for once, as `recommend` asks: what comes back are vectors, or rows that a scorer takes, whatever the
kind. So who is known is answered from the files alone, also by models that see histories or features.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, cast

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame

from sparkrec import storage
from sparkrec.errors import InputError
from sparkrec.exported.files import Writing, writing
from sparkrec.exported.histories import Encoded, Histories, States, write_histories
from sparkrec.exported.ids import write_ids
from sparkrec.exported.model import BY, SCORER
from sparkrec.kernels.arrays import F32, I64
from sparkrec.kernels.csr import Csr, Storage
from sparkrec.kernels.ragged import starts_of
from sparkrec.kernels.retrieval.topk import prepare_items
from sparkrec.spark.arrow.blocks import read_lists
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.in_place import write
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import matrix
from sparkrec.spark.model.serving import bind
from sparkrec.spark.platform.few import folders_of, narrowed
from sparkrec.spark.platform.keeping import scratch

_EDGE = 64
"""Dense rows of items are padded to a multiple of this: so BLAS treats all alike, and equal rows score the same."""


def export(
    model: Model,
    dataset: Dataset,
    path: str,
    *,
    reference: str,
    include_validation: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a model with the ids and the seen items of its dataset into a folder of this machine. Returns what the
    manifest says.

    reference  what to call the model
    The driver holds the seen items, 24 bytes each, and of a model with sparse rows these; dense rows go from file to
    file. Raises InputError where the model cannot be asked without more than the user (it sees a context), where ids
    are neither whole numbers nor texts, and as `exported.files.writing`.
    """
    settings, layout = model.settings, dataset.layout
    kind = "model" if settings is None else settings.kind
    if model.serving.sees_fields and layout is not None and layout.context:
        names = ", ".join(name for name, _ in layout.context)
        raise InputError(
            f"a {kind} that sees the context ({names}) cannot be exported: its answers depend on more than who asks. "
            "Train it on a dataset without context, or use `sparkrec recommend` with `context`."
        )
    facts: dict[str, Any] = {
        "model": reference,
        "kind": kind,
        "settings": settings and settings.model_dump(mode="json"),
        "dataset": dataset.reference,
        "explicit": dataset.explicit,
    }
    folder = scratch(dataset.train.sparkSession)
    with writing(path, facts, overwrite) as out:
        try:
            _write(model, dataset, out, facts, folder, include_validation)
        finally:
            storage.delete(folder)
    return facts


def _write(
    model: Model, dataset: Dataset, out: Writing, facts: dict[str, Any], folder: str, include_validation: bool
) -> None:
    def rows(name: str, frame: DataFrame, *columns: str) -> Iterator[pa.Table]:
        frame = narrowed(frame, *columns)
        if (folders := folders_of(frame)) is None:
            folders = (f"{folder}/{name}",)
            write(frame, *folders)
        return chain.from_iterable(storage.read_parquet(each, [*columns]) for each in folders)

    observed = dataset.observed(True)
    tables = {
        side: pa.concat_tables(rows(f"{side}_ids", frame, side, f"{side}_id", "train_count")).sort_by(side)
        for side, frame in (("user", dataset.users), ("item", dataset.items))
    }
    facts["ids"] = {side: _write_ids(out, side, table[f"{side}_id"]) for side, table in tables.items()}
    out.array("item_popularity", tables["item"]["train_count"].to_numpy().astype(np.float32))
    users, items = (table[side].to_numpy() for side, table in tables.items())  # a place is a place in these
    bound = bind(model, dataset, narrowed(dataset.users, "user"), observed, include_validation=include_validation)
    answered, of = pa.concat_tables(rows("answered", bound.users, "user", "by")), bound.model
    by = np.full(len(users), BY.index("popularity"), np.int8)
    by[np.searchsorted(users, answered["user"].to_numpy())] = [BY.index(each) for each in answered["by"].to_pylist()]
    out.array("user_by", by)
    fitted = np.zeros(len(items), bool)
    of_fit = pa.concat_tables(rows("fitted", dataset.fitted("item", include_validation), "item"))
    fitted[np.searchsorted(items, of_fit["item"].to_numpy())] = True
    out.array("item_fitted", fitted)
    columns = ("index", "value")
    _write_rows(out, "user", users, rows("users", of.users, "user", *columns), of.user_storage, of.size, len(users))
    _write_items(out, items, rows("items", of.items, "item", *columns), of)
    if of.scorer is not None:
        out.bytes(SCORER, of.scorer.to_bytes())
    n_seen = _write_seen(out, users, items, rows("seen", observed, "user", "item"))
    histories = _histories(model, dataset, include_validation, lambda: rows("rows", model.items, "item", "value"))
    facts["histories"] = write_histories(out, histories)
    facts["counts"] = {"users": len(users), "items": len(items), "seen": n_seen}
    facts["answered_by"] = {each: int((by == at).sum()) for at, each in enumerate(BY)}


def _write_ids(out: Writing, side: str, ids: pa.ChunkedArray) -> str:
    if pa.types.is_integer(ids.type):
        return write_ids(out, side, ids.to_numpy().astype(np.int64))
    if pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type):
        return write_ids(out, side, ids.to_pylist())
    raise InputError(f"{side}s have ids of type {ids.type}; an exported model takes whole numbers or texts. Cast them.")


def _write_items(out: Writing, items: I64, rows: Iterator[pa.Table], model: Model) -> None:
    m = len(items)
    if model.user_storage == "dense":
        n = m if model.scorer is not None else m + -m % _EDGE
        _write_rows(out, "item", items, rows, "dense", model.size, n)
    elif model.item_storage == "dense":
        by_source = out.mapped("item_rows", (model.size, m), np.float32)
        for table in rows:
            by_source[:, np.searchsorted(items, table["item"].to_numpy())] = _matrix(table).T
    else:
        turned = prepare_items(_sparse(items, "item", rows), model.size).by_source
        _write_csr(out, "item", cast(Csr, turned))


def _write_rows(
    out: Writing, side: str, ids: I64, rows: Iterator[pa.Table], storage_of: Storage, size: int, n: int
) -> None:
    """Rows of one side by place, `n` of them; without a row in the tables they are zeros."""
    if storage_of == "sparse":
        _write_csr(out, side, _sparse(ids, side, rows))
        return
    made = out.mapped(f"{side}_rows", (n, size), np.float32)
    for table in rows:
        made[np.searchsorted(ids, table[side].to_numpy())] = _matrix(table)


def _matrix(table: pa.Table) -> F32:
    return matrix(table["value"].combine_chunks())


def _sparse(ids: I64, side: str, rows: Iterator[pa.Table]) -> Csr:
    """Sparse rows by place."""
    table = pa.concat_tables(rows).combine_chunks()
    at = np.searchsorted(ids, table[side].to_numpy())
    index, value = (
        read_lists(table[name].combine_chunks(), kind) for name, kind in (("index", np.int32), ("value", np.float32))
    )
    order = np.argsort(at)
    lengths = np.zeros(len(ids), np.int64)
    lengths[at] = index.lengths
    return Csr(starts_of(lengths), index.take(order).values, value.take(order).values)


def _write_csr(out: Writing, side: str, rows: Csr) -> None:
    for name, values in (("start", rows.indptr), ("index", rows.indices), ("value", rows.values)):
        out.array(f"{side}_rows_{name}", values)


def _write_seen(out: Writing, users: I64, items: I64, events: Iterator[pa.Table]) -> int:
    """The items of each user by place, ascending and each once. Returns how many there are."""
    m, parts = max(len(items), 1), [np.zeros(0, np.int64)]
    for table in events:
        user, item = (np.searchsorted(ids, table[side].to_numpy()) for ids, side in ((users, "user"), (items, "item")))
        parts.append(np.unique(user * m + item))
    cells = np.concatenate(parts)
    parts.clear()
    cells.sort()
    cells = cells[np.diff(cells, prepend=-1) > 0]
    out.array("seen_start", np.searchsorted(cells, np.arange(len(users) + 1) * m))
    out.array("seen_items", (cells % m).astype(np.int32))
    return len(cells)


def _histories(model: Model, dataset: Dataset, include_validation: bool, items: Any) -> Histories | None:
    """What makes rows of histories; None: nothing does."""
    if model.serving.exported is not None:
        return model.serving.exported(model, model.settings, dataset.observed(include_validation))
    if model.encoder is not None:
        return Encoded(model.encoder.to_bytes())
    if not model.sees_histories:
        return None
    cut = dataset.sequence_settings
    assert cut is not None
    assert model.scorer is not None
    table = pa.concat_tables(items()).sort_by("item")
    return States(model.scorer.to_bytes(), model.size, cut.length, _matrix(table))
