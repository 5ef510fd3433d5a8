"""The lake: Delta tables, and runs whose output exists once their manifest does."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, TypeVar

import pyarrow as pa
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, DataFrameWriter, SparkSession

from sparkrec import __version__, storage
from sparkrec.config import Settings, StageSettings
from sparkrec.errors import InputError
from sparkrec.secrets import masked
from sparkrec.spark.platform.arrow_types import to_arrow_schema
from sparkrec.spark.platform.before_spark_4 import from_arrow, schema_of
from sparkrec.spark.platform.conf import preferred, setting
from sparkrec.spark.platform.delta import is_conflict, on_databricks, require_delta
from sparkrec.spark.platform.delta_tables import CatalogTables, DeltaTables, FolderTables
from sparkrec.spark.platform.failures import reason
from sparkrec.spark.platform.keeping import work_in
from sparkrec.spark.platform.sources import quoted, whole_path
from sparkrec.tables import Table

T = TypeVar("T")

FOLDERS = {
    "prepare": "datasets",
    "train": "models",
    "recommend": "recommend_runs",
    "evaluate": "evaluations",
    "tune": "tunings",
}
"""Folder of a stage's runs: `<lake>/<folder>/<name>/<run id>`."""

_ATTEMPTS = 8
_LISTING = "spark.sql.sources.parallelPartitionDiscovery.parallelism"
_one_at_a_time = threading.Lock()
"""Of changes by SQL, whose transaction ids are settings of a session, which all threads share."""
_TRANSACTION = "spark.databricks.delta.write.txn"  # what a writer's options say, for SQL
_PLACES = ("lake", "spark")  # where a run happens does not change what it computes


@cache
def code_version() -> str:
    """Version of sparkrec and a digest of its sources: other code is another run."""
    digest = hashlib.sha256()

    def add(folder: Any) -> None:
        for entry in sorted(folder.iterdir(), key=lambda each: each.name):
            if entry.is_dir():
                add(entry)
            elif entry.name.endswith(".py"):
                digest.update(entry.name.encode() + entry.read_bytes())

    add(resources.files("sparkrec"))
    return f"{__version__}+{digest.hexdigest()[:12]}"


@dataclass(frozen=True)
class Run:
    """One execution of a stage, named by what determines its result."""

    stage: str
    name: str
    id: str
    path: str
    settings: dict[str, Any]
    inputs: dict[str, Any]
    manifest: dict[str, Any] | None = None
    started: float = field(default_factory=time.time)

    @property
    def finished(self) -> bool:
        return self.manifest is not None

    @property
    def reference(self) -> str:
        """`name@id`, which pins this run in a config."""
        return f"{self.name}@{self.id}"

    def report(self) -> dict[str, Any]:
        """For people: where the run is, and what its manifest tells beyond settings and inputs."""
        facts = {key: value for key, value in (self.manifest or {}).items() if key not in ("settings", "inputs")}
        return {"run": self.reference, "path": self.path, **facts}

    def publish(self, **facts: Any) -> Run:
        """Write the manifest, last: from now on the output exists. Returns the finished run."""
        now = time.time()
        manifest = {
            "stage": self.stage,
            "name": self.name,
            "id": self.id,
            "settings": self.settings,
            "inputs": self.inputs,
            "code": code_version(),
            "finished": now,
            "seconds": round(now - self.started, 3),
            **masked(facts),
        }
        storage.write_json(f"{self.path}/manifest.json", manifest)
        return Run(self.stage, self.name, self.id, self.path, self.settings, self.inputs, manifest)


def _retried(commit: Callable[[], T]) -> T:
    """What a commit to a Delta table returns, tried again where another one was made at the same moment."""
    for attempt in range(_ATTEMPTS):
        try:
            return commit()
        except Exception as error:
            if attempt == _ATTEMPTS - 1 or not is_conflict(error):
                raise
            time.sleep(random.uniform(0.1, 0.5) * (attempt + 1))
    raise AssertionError


def finished_run(root: str, stage: str, reference: str) -> Run:
    """The finished run of a reference: `name@id`, or the latest of `name`. Needs no Spark."""
    name, _, run_id = reference.partition("@")
    folder = f"{root}/{FOLDERS[stage]}/{name}"
    ids = [run_id] if run_id else storage.folders(folder)
    manifests = [storage.read_json(f"{folder}/{each}/manifest.json") for each in ids]
    found = [manifest for manifest in manifests if manifest is not None]
    if not found:
        others = [n for n in storage.folders(f"{root}/{FOLDERS[stage]}") if n != name]
        hint = f" It has {', '.join(others)}." if others else ""
        raise InputError(
            f"there is no finished {stage} run {reference!r} in the lake {root}. Run `sparkrec {stage}` first.{hint}"
        )
    manifest = max(found, key=lambda each: each["finished"])
    path = f"{folder}/{manifest['id']}"
    return Run(stage, name, manifest["id"], path, manifest["settings"], manifest["inputs"], manifest)


class Lake:
    """Tables and runs: in folders below one root, or the tables in a schema of a catalog.

    Tables go by their names there; one of another schema by its full name. Raises EnvironmentMismatch where the session
    has no Delta, InputError where there is no such schema.
    """

    def __init__(self, spark: SparkSession, root: str, schema: str | None = None):
        if "`" in root:
            raise InputError(f"the lake's path {root!r} holds a backtick. Choose another folder.")
        require_delta(spark)
        self.spark = spark
        if on_databricks() and root.startswith("/dbfs/"):  # as Python sees it; Spark would look in a folder dbfs
            root = root.replace("/dbfs/", "dbfs:/", 1)
        self.root = whole_path(root.rstrip("/"))
        self._tables: DeltaTables = FolderTables(spark, self.root) if schema is None else CatalogTables(spark, schema)
        self.label = schema or self.root
        """For people: where the tables are."""
        work_in(spark, self.path("scratch"))

    @classmethod
    def of(cls, settings: StageSettings, spark: SparkSession) -> Lake:
        """The lake that settings name."""
        return cls(spark, settings.files, settings.schema_of_tables)

    def path(self, *parts: str) -> str:
        return "/".join((self.root, *parts))

    # --- Delta tables ---

    def place(self, name: str) -> str:
        """Where a table is, for people: its folder, or its name in the catalog."""
        return self._of(name).place(name)

    def has_table(self, name: str) -> bool:
        """Whether a first commit was made."""
        return self._of(name).exists(name)

    def table(self, name: str, version: int | None = None) -> DataFrame:
        """A Delta table, at a version if one is given."""
        if not self.has_table(name):
            raise self._missing(name)
        try:
            return self._of(name).read(name, version)
        except AnalysisException as error:
            if version is None:
                raise InputError(f"cannot read table {name!r} of the lake {self.label}: {reason(error)}.") from None
            raise InputError(
                f"table {name!r} has no version {version} to read: the latest is {self.table_version(name)}, and "
                "old ones go when the table is vacuumed. Choose a later version, or none for the latest."
            ) from None

    def table_version(self, name: str) -> int:
        """Latest version of a Delta table: the number of its last commit."""
        latest = self._of(name).latest(name)
        if latest is None:
            raise self._missing(name)
        return latest

    def table_id(self, name: str) -> str:
        """Identity of a Delta table: another one at the same place has another."""
        identity = self._of(name).identity(name)
        if identity is None:
            raise self._missing(name)
        return identity

    def table_bytes(self, name: str) -> int:
        """Bytes of the files of a Delta table that is there."""
        return self._of(name).size(name)

    def append(
        self, name: str, frame: DataFrame, transaction: str, table: Table | None = None, new_columns: bool = False
    ) -> None:
        """Append in one commit, at most once for each transaction id: a repeated call does nothing.

        table  what the table is to be when it is made; None: it has nothing but its columns

        Another job's commit at the same moment makes it try again, on a table that may be there by now.
        """
        writer = frame.write.format("delta").mode("append")
        if new_columns:
            writer = writer.option("mergeSchema", "true")
        self._commit(name, frame, writer, transaction, table)

    def add_rows(self, table: Table, rows: list[dict[str, Any]], transaction: str) -> None:
        """As `append`, of a few rows of the driver; a column that a row does not have is null."""
        schema = to_arrow_schema(schema_of(table.columns))
        self.append(table.name, from_arrow(self.spark, pa.Table.from_pylist(rows, schema)), transaction, table)

    def delete_rows(self, name: str, where: str) -> int:
        """Delete the rows for which a condition in SQL holds, in one commit. Returns their number.

        Older versions of the table have them until `vacuum`.
        """
        return int(self._change(f"DELETE FROM {self._of(name).quoted(name)} WHERE {where}"))

    def update_rows(self, name: str, column: str, value: str, where: str) -> int:
        """Put a value, in SQL, into a column of the rows for which a condition holds, in one commit. Returns their
        number."""
        return int(self._change(f"UPDATE {self._of(name).quoted(name)} SET {column} = {value} WHERE {where}"))

    def vacuum(self, name: str) -> None:
        """Delete the files of a table that no version needs any more which Delta keeps: by default those of a week."""
        # Delta lists folders in as many tasks as Spark lists files, 10,000, which takes a minute where there are few.
        with preferred(self.spark, {_LISTING: setting(self.spark, "spark.sql.shuffle.partitions") or "200"}):
            self.spark.sql(f"VACUUM {self._of(name).quoted(name)}").collect()

    def change_rows(self, name: str, changes: DataFrame, where: str, transaction: str) -> None:
        """Delete and add rows in one commit, at most once for each transaction id.

        changes  the columns of the table, and `gone`: where that is true, every row that is equal in all columns but
                 `batch` is deleted, and where it is false, the row is added
        where    condition in SQL on the columns of rows `old` that may be deleted
        """
        names = [quoted(each) for each in changes.columns if each != "gone"]
        same = " AND ".join(f"old.{each} <=> new.{each}" for each in names if each != quoted("batch"))
        view = f"changes_{uuid.uuid4().hex}"
        changes.createOrReplaceTempView(view)
        statement = (
            f"MERGE INTO {self._of(name).quoted(name)} old USING {view} new ON new.gone AND {where} AND {same} "
            f"WHEN MATCHED THEN DELETE WHEN NOT MATCHED AND NOT new.gone THEN INSERT ({', '.join(names)}) "
            f"VALUES ({', '.join(f'new.{each}' for each in names)})"
        )
        with (
            _one_at_a_time,
            preferred(self.spark, {f"{_TRANSACTION}AppId": transaction, f"{_TRANSACTION}Version": "1"}),
        ):
            _retried(lambda: self.spark.sql(statement).collect())
        self.spark.catalog.dropTempView(view)

    def table_names(self) -> list[str]:
        """Names of the Delta tables of the lake."""
        return self._tables.names()

    def replace(self, name: str, frame: DataFrame, transaction: str, table: Table | None = None) -> None:
        """As `append`, instead of the rows that are there: until the commit, readers see those."""
        self._commit(name, frame, frame.write.format("delta").mode("overwrite"), transaction, table)

    def _commit(
        self, name: str, frame: DataFrame, writer: DataFrameWriter, transaction: str, table: Table | None
    ) -> None:
        writer = writer.option("txnAppId", transaction).option("txnVersion", 1)
        _retried(lambda: self._of(name).append(name, writer, table, frame))

    def _change(self, statement: str) -> Any:
        with _one_at_a_time:
            return _retried(lambda: self.spark.sql(statement).collect())[0][0]

    def _of(self, name: str) -> DeltaTables:
        return CatalogTables(self.spark) if "." in name else self._tables

    def _missing(self, name: str) -> InputError:
        return InputError(f"there is no table {name!r} in the lake {self.label}. Run `sparkrec ingest` first.")

    # --- runs ---

    def open_run(self, stage: str, name: str, settings: Settings, inputs: Mapping[str, Any]) -> Run:
        """The run that these settings, input versions and code determine; finished when its manifest is there.

        Secrets are masked: another password is no other run.
        """
        values = masked(settings.model_dump(mode="json", exclude=set(_PLACES)))
        key = json.dumps([stage, name, values, dict(inputs), code_version()], sort_keys=True, default=str)
        run_id = hashlib.sha256(key.encode()).hexdigest()[:12]
        path = self.path(FOLDERS[stage], name, run_id)
        manifest = storage.read_json(f"{path}/manifest.json")
        return Run(stage, name, run_id, path, values, dict(inputs), manifest)

    def finished_ids(self, stage: str, name: str) -> list[str]:
        """Ids of the finished runs of a name."""
        folder = self.path(FOLDERS[stage], name)
        return [each for each in storage.folders(folder) if storage.exists(f"{folder}/{each}/manifest.json")]

    def finished_run(self, stage: str, reference: str) -> Run:
        """The finished run of a reference: `name@id`, or the latest of `name`."""
        return finished_run(self.root, stage, reference)
