"""Whoever asks for it is forgotten: nothing in the lake tells any more what such a user did."""

from __future__ import annotations

import datetime as dt
import getpass
import hashlib
import logging
import secrets
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import functions as F
from pyspark.sql.types import LongType

from sparkrec import storage, tables
from sparkrec.config import model_settings
from sparkrec.errors import Refused
from sparkrec.models.base.published import LEARNED
from sparkrec.spark.platform.delta_tables import text
from sparkrec.spark.platform.failures import mendable
from sparkrec.spark.platform.lake import Lake, Run
from sparkrec.stages.upkeep.contents import Unfinished, interaction_tables, list_tables, nobody_else, runs_of

log = logging.getLogger(__name__)

_QUIET = 3600.0
"""Seconds after its last file from which on an unfinished run counts as given up."""
_HORIZON = dt.timedelta(days=7)
"""Delta's own, for which files of older versions stay whatever is vacuumed."""


def forget(lake: Lake, users: Sequence[str], reason: str) -> dict[str, Any]:
    """Remove users, by their ids in the log, from every table and every run. Returns the receipt, for people.

    Their interactions, rejected rows, lists and the rows of datasets, models and evaluations that are theirs go; what
    was learnt from them together with all others stays in the rows of items until it is trained again. Their integers
    stay taken, under ids that nobody has. Runs that were given up go as a whole. One that was killed is run again.
    Raises Refused while a night, or another run, is under way.
    """
    with mendable(), nobody_else(lake):
        finished, unfinished = runs_of(lake)
        _remove_given_up(unfinished)
        removed: dict[str, int] = {}
        for table in interaction_tables(lake):
            _of_table(lake, table, users, finished, removed)
        for table in list_tables(lake, finished):
            _delete(lake, table, users, removed)
        for run in finished:
            if run.stage == "evaluate":
                _from_examples(run, users, removed)
        now = dt.datetime.now(dt.timezone.utc)
        receipt: dict[str, Any] = {
            "request": uuid.uuid4().hex,
            "users": [hashlib.sha256(user.encode()).hexdigest() for user in users],
            "removed": removed,
            "reason": reason,
            "actor": getpass.getuser(),
            "final_after": now + _HORIZON,
            "at": now,
        }
        lake.add_rows(tables.FORGOTTEN, [receipt], f"forgotten:{receipt['request']}")
    if not removed:
        log.warning("nothing is known of %s", ", ".join(users))
    times = {name: f"{receipt[name]:%Y-%m-%d %H:%M} UTC" for name in ("final_after", "at")}
    return receipt | times


def _of_table(lake: Lake, table: str, users: Sequence[str], finished: list[Run], removed: dict[str, int]) -> None:
    """Forget users of one table of interactions; the ids last, by which the rest is found again after a kill."""
    ids = tables.named(tables.USERS, table)
    integers: list[int] = []
    if lake.has_table(ids) and (where := _where(lake, ids, users)):
        integers = [row["user"] for row in lake.table(ids).where(where).select("user").collect()]
    _delete(lake, table, users, removed)
    _delete_rejected(lake, table, users, removed)
    if integers:
        datasets = [run for run in finished if run.stage == "prepare" and run.inputs["interactions"]["table"] == table]
        names = {run.reference for run in datasets}
        others = [run for run in finished if run.inputs.get("dataset") in names and run.stage in ("train", "evaluate")]
        models = [run for run in others if run.stage == "train"]
        for run in models:
            storage.delete(f"{run.path}/{LEARNED}")  # from which the next one would begin: it begins cold
        _from_files(lake, [*datasets, *others], integers, removed)
        for run in models:
            if _is_by_users(run):
                _from_positions(run, integers)
        _rename(lake, ids, users, removed)


def _where(lake: Lake, table: str, users: Sequence[str]) -> str | None:
    """The condition of rows of users in a table; None where its ids are of a type that theirs are not."""
    if isinstance(lake.table(table).schema["user_id"].dataType, LongType):
        values = [user for user in users if user.removeprefix("-").isdecimal()]
    else:
        values = [text(user) for user in users]
    return f"user_id IN ({', '.join(values)})" if values else None


def _delete(lake: Lake, table: str, users: Sequence[str], removed: dict[str, int]) -> None:
    where = _where(lake, table, users)
    if where is not None and not lake.table(table).where(where).isEmpty():  # a commit would be another version
        removed[table] = removed.get(table, 0) + lake.delete_rows(table, where)


def _delete_rejected(lake: Lake, interactions: str, users: Sequence[str], removed: dict[str, int]) -> None:
    """Rejected rows of a log that have a user's id in any column."""
    table = tables.named(tables.REJECTED, interactions)
    if not lake.has_table(table):
        return
    values = "map_values(from_json(row, 'map<string, string>'))"
    where = f"arrays_overlap({values}, array({', '.join(map(text, users))}))"
    if not lake.table(table).where(where).isEmpty():
        removed[table] = lake.delete_rows(table, where)


def _rename(lake: Lake, table: str, users: Sequence[str], removed: dict[str, int]) -> None:
    """Give the integers of users ids that nobody has: a free integer would be given to somebody else."""
    where = _where(lake, table, users)
    assert where is not None
    of_long = isinstance(lake.table(table).schema["user_id"].dataType, LongType)
    new = [str(-secrets.randbits(62)) if of_long else text(f"forgotten-{uuid.uuid4().hex}") for _ in users]
    known = [user if of_long else text(user) for user in users]
    cases = " ".join(f"WHEN user_id = {old} THEN {other}" for old, other in zip(known, new, strict=True))
    removed[table] = lake.update_rows(table, "user_id", f"CASE {cases} ELSE user_id END", where)


def _remove_given_up(unfinished: list[Unfinished]) -> None:
    """Snapshots and half tables of runs that were given up. Raises Refused where one may be under way."""
    for each in unfinished:
        last = storage.newest(each.path)
        if last is not None and time.time() - last < _QUIET:
            raise Refused(
                f"{each.stage} {each.reference} may be under way: {each.path} was written to "
                f"{(time.time() - last) / 60:.0f} minutes ago. Finish it by running it again, delete the folder, or "
                f"wait for {_QUIET / 60:.0f} minutes."
            )
    for each in unfinished:
        storage.delete(each.path)


def _from_files(lake: Lake, runs: list[Run], integers: list[int], removed: dict[str, int]) -> None:
    """Take users out of the Parquet tables of runs that have a column `user`, file by file, each in one step."""
    folders = {f"{run.path}/{table}": run for run in runs for table in storage.folders(run.path)}
    if not folders:
        return
    rows = lake.spark.read.schema("user long").parquet(*folders)
    found = rows.where(F.col("user").isin(integers)).select("_metadata.file_path").distinct().collect()
    for row in found:
        tail = unquote(urlsplit(row[0]).path).rsplit("/", 5)[1:]
        folder = lake.path(*tail[:-1])
        gone = _rewrite(f"{folder}/{tail[-1]}", lambda table: table.filter(_others(table["user"], integers)))
        name = f"{folders[folder].stage} {folders[folder].reference}"
        removed[name] = removed.get(name, 0) + gone


def _others(column: pa.ChunkedArray, integers: list[int]) -> pa.ChunkedArray:
    return pc.invert(pc.is_in(column, value_set=pa.array(integers, column.type)))


def _is_by_users(run: Run) -> bool:
    """Whether the positions in the rows of a model are users, as those of neighbours are."""
    likeness = model_settings(run.settings["model"]).declaration.likeness
    return likeness is not None and likeness.fitted_side == "user"


def _from_positions(run: Run, integers: list[int]) -> None:
    for folder in (f"{run.path}/{table}" for table in ("users", "items")):
        for name in storage.files(folder):
            if name.endswith(".parquet"):
                _rewrite(f"{folder}/{name}", lambda table: _without_positions(table, integers))


def _without_positions(table: pa.Table, integers: list[int]) -> pa.Table:
    """Rows of `tables.MODEL_USERS` or `MODEL_ITEMS` without the values at some positions."""
    index, value = (table[name].combine_chunks() for name in ("index", "value"))
    stays = ~np.isin(index.flatten().to_numpy(), integers)
    if stays.all():
        return table
    counted = np.concatenate([[0], np.cumsum(stays)]).astype(np.int32)
    starts = pa.array(counted[index.offsets.to_numpy() - index.offsets[0].as_py()], pa.int32())
    for name, column in (("index", index), ("value", value)):
        rows = pa.ListArray.from_arrays(starts, column.flatten().filter(pa.array(stays)), type=column.type)
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), rows)
    return table


def _rewrite(path: str, change: Callable[[pa.Table], pa.Table]) -> int:
    """Put a changed table into the place of a Parquet file: a reader sees the one or the other. Returns the number of
    rows that went; where nothing changed, the file stays."""
    table = pq.read_table(pa.BufferReader(storage.read(path)))
    changed = change(table)
    if changed is not table and not changed.equals(table):
        folder, _, name = path.rpartition("/")
        storage.delete(f"{folder}/.{name}.crc")  # Hadoop's sum of the bytes that were there, on a local disk
        storage.write(path, storage.parquet(changed))
    return len(table) - len(changed)


def _from_examples(run: Run, users: Sequence[str], removed: dict[str, int]) -> None:
    """Take users out of the examples of an evaluation."""
    path = f"{run.path}/metrics.json"
    about = storage.read_json(path) or {}
    examples = about.get("examples", [])
    others = [each for each in examples if each["user"] not in users]
    if len(others) < len(examples):
        storage.write_json(path, {**about, "examples": others})
        removed[f"evaluate {run.reference}"] = removed.get(f"evaluate {run.reference}", 0) + len(examples) - len(others)
