"""A prepared dataset: splits over integer ids, read from a finished `prepare` run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame

from sparkrec import storage
from sparkrec.config import DataFacts, SequenceSettings, values_of
from sparkrec.errors import InputError
from sparkrec.fields import FieldSchema
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.platform.few import from_files, is_known_to_be_empty, narrowed, union
from sparkrec.spark.platform.lake import Lake
from sparkrec.spark.runner import Rows


@dataclass(frozen=True)
class Dataset:
    """Tables of one dataset; columns as `tables.SPLIT`, `DATASET_USERS`, `DATASET_ITEMS` and `CANDIDATES`."""

    reference: str
    """`name@id`."""
    folder: str
    manifest: dict[str, Any]
    train: DataFrame
    validation: DataFrame
    test: DataFrame
    users: DataFrame
    items: DataFrame
    candidates: DataFrame | None = None
    """Items to rank for each test user; None when the dataset came without."""
    sequences: DataFrame | None = None
    """Sequences of `train`, columns as `tables.SEQUENCES`; None: they are cut when they are asked for."""

    @classmethod
    def open(cls, lake: Lake, reference: str) -> Dataset:
        """The dataset of a reference, once its id tables are known to be the ones it was made with."""
        run = lake.finished_run("prepare", reference)
        assert run.manifest is not None
        for side in ("users", "items"):
            pinned = run.manifest["ids"][side]
            if not lake.has_table(pinned["table"]) or lake.table_id(pinned["table"]) != pinned["id"]:
                raise InputError(
                    f"the id table {pinned['table']!r} in {lake.label} is not the one that dataset {run.reference} "
                    "was made with: its integers would name other users or items. Restore that table, or run "
                    "`sparkrec prepare` again."
                )
        names = ["train", "validation", "test", "users", "items"]
        if storage.exists(f"{run.path}/candidates"):
            names.append("candidates")
        tables: dict[str, Any] = {name: from_files(lake.spark, f"{run.path}/{name}") for name in names}
        if run.manifest["settings"].get("sequences") is not None:
            tables["sequences"] = from_files(lake.spark, f"{run.path}/sequences")
        return cls(reference=run.reference, folder=run.path, manifest=run.manifest, **tables)

    @property
    def name(self) -> str:
        return self.reference.partition("@")[0]

    @property
    def explicit(self) -> bool:
        return bool(self.manifest["settings"]["feedback"]["kind"] == "explicit")

    def times(self, *parts: str) -> tuple[int, int] | None:
        """When the first and the last interaction of some parts took place, in microseconds since 1970; None: there is
        none that says so."""
        told = self.manifest.get("times", {})
        spans = [told[part] for part in parts if part in told]
        return (min(first for first, _ in spans), max(last for _, last in spans)) if spans else None

    @property
    def layout(self) -> FieldSchema | None:
        """Fields of its features; None: it has none."""
        said = self.manifest.get("fields")
        return FieldSchema.from_json(said["layout"]) if said else None

    def features(self, side: str) -> DataFrame:
        """(<side>, since, rows, weights) of the users or items: columns as `tables.USER_FEATURES`."""
        return from_files(self.train.sparkSession, f"{self.folder}/{side}_features")

    @property
    def sequence_settings(self) -> SequenceSettings | None:
        """How its sequences were cut; None: it has none."""
        said = self.manifest["settings"].get("sequences")
        return None if said is None else SequenceSettings.model_validate(said)

    def facts(self, include_validation: bool = False) -> DataFacts:
        """What settings are chosen by that are left to the data: one pass over train, one over validation."""
        frames = self.observed(include_validation), self.validation, self.users, self.items

        def plan(observed: Rows, validation: Rows, users: Rows, items: Rows) -> DataFacts:
            of_all, confidence = observed.described("value", "confidence")
            held_out = None
            if not include_validation and (of_some := validation.described("value")[0]).rows:
                held_out = values_of(self.explicit, of_some.different, of_some.least or 0.0)
            return DataFacts(
                users=users.count(),
                items=items.count(),
                rows=of_all.rows,
                explicit=self.explicit,
                held_out=held_out,
                confidence=confidence.mean or 1.0,
                deviation=of_all.deviation or 0.0,
                values=values_of(self.explicit, of_all.different, of_all.least or 0.0),
            )

        return carry_out("facts", plan, *frames, fetch=False)

    def observed(self, include_validation: bool) -> DataFrame:
        """What a model is fitted to."""
        if not include_validation or is_known_to_be_empty(self.validation):
            return self.train
        return union(self.train, self.validation)

    def fitted(self, side: str, include_validation: bool) -> DataFrame:
        """(<side>) of the users or items that such a model has been fitted to a row of."""

        def plan(ids: Rows, validation: Rows | None) -> DataFrame:
            fitted = ids.where_at_least("train_count", 1).select(side)
            return (fitted if validation is None else fitted.union(validation.select(side)).distinct()).frame()

        ids = narrowed(self.users if side == "user" else self.items, side, "train_count")
        more = None
        if include_validation and not is_known_to_be_empty(self.validation):
            more = narrowed(self.validation, side)
        return carry_out("fitted", plan, ids, more, fetch=False)
