"""Fitting a network: examples to shards, processes, and what they trained as the tables of a model."""

from __future__ import annotations

import hashlib
import json
import logging

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import storage
from sparkrec.fitting import history
from sparkrec.kernels.arrays import F32, I64
from sparkrec.models.base.settings import NetworkSettings
from sparkrec.spark.data.fit_inputs import FitInputs
from sparkrec.spark.data.sequences import encode_items, histories
from sparkrec.spark.data.shards import FeatureShards, SequenceShards, write_shards
from sparkrec.spark.model.field_queries import item_features_by_index
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import dense_vectors
from sparkrec.spark.platform.digests import content_digest

log = logging.getLogger(__name__)


def fit_network(settings: NetworkSettings, inputs: FitInputs) -> Model:
    """Train the network that `settings` describe on the observed rows of a dataset; resumes from `inputs.scratch`."""
    settings.check_packages()
    from sparkrec.launch import launch
    from sparkrec.training.export import Trained
    from sparkrec.training.loop import Job, train

    dataset, observed, seed = inputs.dataset, inputs.observed, inputs.seed
    training = settings.training
    items = np.sort(dataset.items.select("item").toArrow()["item"].to_numpy())
    numbers = observed.sparkSession.createDataFrame(
        pa.table({"item": items, "number": np.arange(len(items), dtype=np.int32)})
    )

    known, codes = None, ""
    if settings.declaration.sees_fields and dataset.layout is not None:
        known = FeatureShards(dataset.layout, item_features_by_index(dataset.features("item").toArrow(), items))
        codes = dataset.manifest["fields"]["digest"]
    cut = None
    if (needs := settings.sequence_needs) is not None:
        cut = needs.check(dataset.sequence_settings, settings.kind, dataset.reference)
    about = codes or (cut.model_dump_json() if cut else "")
    scratch = f"{inputs.scratch}/{_fingerprint(settings, observed, seed, about)}"
    of_group = max(training.shards.of_group or 0, training.processes)

    def shards(examples: DataFrame, name: str, ordered: DataFrame | None) -> str:
        folder = f"{scratch}/{name}-{training.shards.groups}x{of_group}"
        columns = examples.join(F.broadcast(numbers), "item")
        names = ["timestamp", "rows", "weights"] if known else []
        columns = columns.select("user", F.col("number").alias("item"), "value", "confidence", *names)
        how = {"groups": training.shards.groups, "of_group": of_group, "seed": seed}
        given = SequenceShards(ordered, cut.length, cut.targets) if cut is not None and ordered is not None else None
        write_shards(columns, folder, n_items=len(items), known=known, ordered=given, **how)
        return folder

    train_on = ask_after = None
    if cut is not None:
        train_on = encode_items(inputs.sequences(cut), items)
        asking = histories(observed, cut).join(dataset.validation.select("user").distinct(), "user", "left_semi")
        ask_after = encode_items(asking.withColumn("place", F.lit(0)), items)
    validation = shards(dataset.validation, "validation", ask_after) if training.stopping else None
    examples = shards(observed, "examples", train_on)
    job = Job(settings, examples, validation, f"{scratch}/checkpoints", seed, inputs.parents)
    state = launch(train, job, training)
    if left_out := state["users_without_negatives"]:
        log.warning("%s users have every item, so that there is no negative to draw: they were left out", left_out)
    history.to_mlflow(f"{dataset.name}-{settings.kind}", settings.model_dump(mode="json"), state["history"])
    trained = Trained.of(settings, job.folder, state, job.shards, codes)
    rows = {side: f"{scratch}/{side}" for side in ("users", "items")}
    for folder in rows.values():
        storage.delete(folder)
    _write(f"{rows['items']}/part-00000.parquet", "item", items, trained.items())
    for at, (ids, values) in enumerate(trained.users()):
        _write(f"{rows['users']}/part-{at:05}.parquet", "user", ids, values)
    spark, stranger = observed.sparkSession, trained.stranger()
    users = dataset.users.select("user").join(spark.read.parquet(rows["users"]), "user", "left")
    value = F.coalesce("value", F.array(*map(F.lit, stranger)).cast("array<float>")).alias("value")
    return Model(
        users=dense_vectors(users.select("user", value), "user"),
        items=dense_vectors(spark.read.parquet(rows["items"]), "item"),
        size=len(stranger),
        user_storage="dense",
        item_storage="dense",
        facts={
            "history": state["history"],
            "epoch": trained.epoch,
            "users_without_negatives": state["users_without_negatives"],
        },
        scorer=trained.scorer(),
        encoder=trained.encoder(),
        files=history.files(state["history"]),
        folder=scratch,
    )


def _fingerprint(settings: NetworkSettings, observed: DataFrame, seed: int, about: str) -> str:
    """Names a training run, however many processes share it: a checkpoint of another one is not its.

    about  features or sequences that the examples come with
    """
    how = {"processes", "threads", "launcher", "device", "checkpoint_every", "stall_seconds", "shards"}
    same = settings.model_dump(mode="json", exclude={"training": how})
    more = [name for name in ("timestamp", "rows", "weights") if name in observed.columns]
    columns = ["user", "item", "value", "confidence", *(more if about else [])]
    content = content_digest(observed, columns)
    return hashlib.sha256(json.dumps([same, seed, about, content], sort_keys=True).encode()).hexdigest()[:16]


def _write(path: str, key: str, ids: I64, rows: F32) -> None:
    starts = np.arange(len(rows) + 1, dtype=np.int64) * rows.shape[1]
    lists = pa.LargeListArray.from_arrays(starts, rows.ravel()).cast(pa.list_(pa.float32()))
    storage.write(path, storage.parquet(pa.table({key: pa.array(ids, pa.int64()), "value": lists})))
