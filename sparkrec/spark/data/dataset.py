"""A prepared dataset: splits over integer ids, read from a finished `prepare` run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import storage
from sparkrec.config import DataFacts, SequenceSettings, values_of
from sparkrec.errors import ConfigError, InputError
from sparkrec.fields import Layout
from sparkrec.spark.platform.lake import Lake


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
    has_sequences_of_train: bool = True
    """Whether the sequences in the folder, where there are any, are those of `train`: they are not of a fold."""

    @classmethod
    def open(cls, lake: Lake, reference: str) -> Dataset:
        """The dataset of a reference, once its id tables are known to be the ones it was made with."""
        run = lake.finished_run("prepare", reference)
        assert run.manifest is not None
        for side in ("users", "items"):
            pinned = run.manifest["ids"][side]
            if not lake.has_table(pinned["table"]) or lake.table_id(pinned["table"]) != pinned["id"]:
                raise InputError(
                    f"the id table {pinned['table']!r} in {lake.root} is not the one that dataset {run.reference} "
                    "was made with: its integers would name other users or items. Restore that table, or run "
                    "`sparkrec prepare` again."
                )
        names = ["train", "validation", "test", "users", "items"]
        if storage.exists(f"{run.path}/candidates"):
            names.append("candidates")
        tables: dict[str, Any] = {name: lake.spark.read.parquet(f"{run.path}/{name}") for name in names}
        return cls(reference=run.reference, folder=run.path, manifest=run.manifest, **tables)

    @property
    def name(self) -> str:
        return self.reference.partition("@")[0]

    @property
    def explicit(self) -> bool:
        return bool(self.manifest["settings"]["feedback"]["kind"] == "explicit")

    @property
    def layout(self) -> Layout | None:
        """Fields of its features; None: it has none."""
        said = self.manifest.get("fields")
        return Layout.from_json(said["layout"]) if said else None

    def features(self, side: str) -> DataFrame:
        """(<side>, since, rows, weights) of the users or items: columns as `tables.USER_FEATURES`."""
        return self.train.sparkSession.read.parquet(f"{self.folder}/{side}_features")

    @property
    def sequence_settings(self) -> SequenceSettings | None:
        """How its sequences were cut; None: it has none."""
        said = self.manifest["settings"].get("sequences")
        return None if said is None else SequenceSettings.model_validate(said)

    @property
    def sequences(self) -> DataFrame:
        """Columns as `tables.SEQUENCES`."""
        return self.train.sparkSession.read.parquet(f"{self.folder}/sequences")

    def facts(self, include_validation: bool = False) -> DataFacts:
        """What settings are chosen by that are left to the data: one pass over train, one over validation."""
        columns = F.count("*"), F.avg("confidence"), F.stddev("value"), F.min("value"), F.approx_count_distinct("value")
        rows, confidence, deviation, lowest, different = self.observed(include_validation).agg(*columns).collect()[0]
        held_out = None
        if not include_validation:
            n, least, several = self.validation.agg(F.count("*"), *columns[3:]).collect()[0]
            held_out = values_of(self.explicit, several, least) if n else None
        return DataFacts(
            users=self.users.count(),
            items=self.items.count(),
            rows=rows,
            explicit=self.explicit,
            held_out=held_out,
            confidence=confidence or 1.0,
            deviation=deviation or 0.0,
            values=values_of(self.explicit, different, lowest or 0.0),
        )

    def observed(self, include_validation: bool) -> DataFrame:
        """What a model is fitted to."""
        return self.train.unionByName(self.validation) if include_validation else self.train

    def fitted(self, side: str, include_validation: bool) -> DataFrame:
        """(<side>) of the users or items that such a model has been fitted to a row of."""
        ids = (self.users if side == "user" else self.items).where("train_count > 0").select(side)
        return ids.unionByName(self.validation.select(side)).distinct() if include_validation else ids


def check_sequences(model: Any, cut: SequenceSettings | None, dataset: str) -> SequenceSettings:
    """How the sequences of a dataset were cut, for a model (a ModelSettings) that sees the order of events.

    dataset  what to call it in the error
    Raises ConfigError where it has not the sequences that the model needs.
    """
    kind = model.kind
    if cut is None:
        raise ConfigError(
            f"model {kind} sees the order of events, and dataset {dataset} has no sequences: prepare it "
            "with `sequences: {length: 50}`"
        )
    if kind != "item2vec" and not cut.ordered:
        raise ConfigError(
            f"model {kind} sees the order of events, and the sequences of dataset {dataset} have none "
            "(`ordered: false`): prepare it from events with timestamps"
        )
    if kind == "item2vec" and not (cut.ordered or model.shuffle):
        raise ConfigError(
            f"the sequences of dataset {dataset} have no order (`ordered: false`): set model.shuffle to true"
        )
    if kind != "markov" and (kind == "caser") != (cut.targets is not None):
        needs = "windows, as of `sequences: {length: 5, targets: 3}`" if kind == "caser" else "whole histories"
        has = "whole histories" if cut.targets is None else f"windows with {cut.targets} targets"
        raise ConfigError(f"model {kind} is trained on {needs}; dataset {dataset} has {has}. Prepare another one.")
    return cut
