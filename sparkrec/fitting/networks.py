"""Fitting a network: examples to shards, processes, and what they trained as the tables of a model."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import cast

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame

from sparkrec import storage
from sparkrec.fitting import history
from sparkrec.kernels.arrays import F32, I64
from sparkrec.kernels.csr import located
from sparkrec.models.base.published import LEARNED, WarmStart
from sparkrec.models.base.settings import NetworkSettings
from sparkrec.shards import Shards
from sparkrec.spark.data.fingerprints import fingerprint
from sparkrec.spark.data.fit_inputs import FitInputs
from sparkrec.spark.data.ids import ascending
from sparkrec.spark.data.sequences import histories
from sparkrec.spark.data.shards import FeatureShards, SequenceShards, write_shards
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.model.field_queries import item_features_by_index
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import DenseRows, all_rows
from sparkrec.spark.platform.before_spark_4 import to_arrow
from sparkrec.spark.platform.few import narrowed
from sparkrec.spark.runner import Rows

log = logging.getLogger(__name__)


def fit_network(settings: NetworkSettings, inputs: FitInputs) -> Model:
    """Train the network that `settings` describe on the observed rows of a dataset; resumes from `inputs.scratch`."""
    settings.check_packages()
    from sparkrec.launch import launch, runs_here
    from sparkrec.models.base.recommender import Sizes
    from sparkrec.training.export import Trained
    from sparkrec.training.loop import Job, train
    from sparkrec.training.warm_start import Earlier

    dataset, observed, seed = inputs.dataset, inputs.observed, inputs.seed
    training = settings.training
    items = ascending(dataset.items, "item")

    known, codes = None, ""
    if settings.declaration.sees_fields and dataset.layout is not None:
        known = FeatureShards(dataset.layout, item_features_by_index(to_arrow(dataset.features("item")), items))
        codes = dataset.manifest["fields"]["digest"]
    cut = None
    if (needs := settings.sequence_needs) is not None:
        cut = needs.check(dataset.sequence_settings, settings.kind, dataset.reference)
    about = codes or (cut.model_dump_json() if cut else "")
    scratch = f"{inputs.scratch}/{_fingerprint(settings, observed, seed, about)}"
    of_group = max(training.shards.of_group or 0, training.processes)

    def shards(examples: DataFrame, name: str, ordered: DataFrame | None) -> Shards:
        return write_shards(
            examples,
            f"{scratch}/{name}-{training.shards.groups}x{of_group}",
            items=items,
            groups=training.shards.groups,
            of_group=of_group,
            seed=seed,
            known=known,
            ordered=None if cut is None or ordered is None else SequenceShards(ordered, cut.length, cut.targets),
            in_memory=runs_here(training),
        )

    train_on = ask_after = None
    if cut is not None:
        train_on = inputs.sequences(cut)
        ask_after = histories(observed, cut, dataset.validation)
    validation = shards(dataset.validation, "validation", ask_after) if training.stopping else None
    examples = shards(observed, "examples", train_on)
    earlier = None
    if (warm := inputs.warm_start) is not None:
        extra = len(settings.network(Sizes()).items.weight)
        before = cast(NetworkSettings, warm.settings).training
        same = (before.optimizer, before.loss) == (training.optimizer, training.loss)
        earlier = Earlier(f"{warm.folder}/{LEARNED}", _rows_before(warm, items, extra), same)
    job = Job(settings, examples, validation, f"{scratch}/checkpoints", seed, inputs.parents, earlier)
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
    stranger = trained.stranger()

    def tables(ids: Rows) -> tuple[DataFrame, DataFrame]:
        users = all_rows(ids, "user", ids.read(rows["users"]), stranger)
        return users.frame(), ids.read(rows["items"]).map_rows(DenseRows("item")).frame()

    of_users, of_items = carry_out("model", tables, narrowed(dataset.users, "user"))
    return Model(
        users=of_users,
        items=of_items,
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
        learned=trained.learned(),
        folder=scratch,
    )


def _rows_before(warm_start: WarmStart, items: I64, extra: int) -> I64:
    """(m,) of each row of a table of items, with what is behind them, the one that it was in an earlier model; -1: it
    is new.

    items  (n,) ids of this model's, ascending
    extra  rows of the table that are neither items nor features
    """
    ids = [table["item"].to_numpy() for table in storage.read_parquet(f"{warm_start.folder}/items", ["item"])]
    before = np.sort(np.concatenate([np.zeros(0, np.int64), *ids]))
    at, is_known = located(items, before)
    behind = np.arange(extra) if warm_start.features is None else warm_start.features
    return np.concatenate([np.where(is_known, at, -1), np.where(behind < 0, -1, len(before) + behind)])


def _fingerprint(settings: NetworkSettings, observed: DataFrame, seed: int, about: str) -> str:
    """Names a training run, however many processes share it: a checkpoint of another one is not its.

    about  features or sequences that the examples come with
    """
    how = {"processes", "threads", "launcher", "device", "checkpoint_every", "stall_seconds", "shards"}
    same = settings.model_dump(mode="json", exclude={"training": how})
    more = [name for name in ("timestamp", "rows", "weights") if name in observed.columns]
    columns = ["user", "item", "value", "confidence", *(more if about else [])]
    content = carry_out("fingerprint", fingerprint, narrowed(observed, *columns))
    return hashlib.sha256(json.dumps([same, seed, about, content], sort_keys=True).encode()).hexdigest()[:16]


def _write(path: str, key: str, ids: I64, rows: F32) -> None:
    starts = np.arange(len(rows) + 1, dtype=np.int64) * rows.shape[1]
    lists = pa.LargeListArray.from_arrays(starts, rows.ravel()).cast(pa.list_(pa.float32()))
    storage.write(path, storage.parquet(pa.table({key: pa.array(ids, pa.int64()), "value": lists})))
