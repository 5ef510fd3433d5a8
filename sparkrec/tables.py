"""Every table of a lake: its columns, key, partitioning, and the stage that writes it.

Delta tables are append-only histories that people query; they live under `<lake>/<name>`. The tables of a dataset or
a model are plain Parquet in the folder of a run, and exist only once the run's manifest does.

Ids come in two forms: `user_id` and `item_id` as the log has them (long or string), and `user` and `item`, the
integers that `prepare` gives and never changes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """One table."""

    name: str
    columns: str
    """As Spark DDL; `id` stands for long or string."""
    key: tuple[str, ...]
    written_by: str
    partition_by: tuple[str, ...] = ()


# --- Delta tables of the lake -------------------------------------------------------------------------------------

INTERACTIONS = Table(
    "interactions",
    # context columns follow, with the names and types of the source
    "user_id id, item_id id, rating double, timestamp timestamp, event string, batch string",
    key=(),
    written_by="ingest",
)
REJECTED = Table(
    "interactions_rejected",
    # `row` is the source row as JSON
    "reason string, source_file string, row string, batch string",
    key=(),
    written_by="ingest",
)
BATCHES = Table(
    "interactions_batches",
    "batch string, content_hash string, state string, rows long, rejected map<string, long>, at timestamp",
    key=("batch",),
    written_by="ingest",
)
USERS = Table("interactions_users", "user long, user_id id", key=("user_id",), written_by="prepare")
ITEMS = Table("interactions_items", "item long, item_id id", key=("item_id",), written_by="prepare")
RECOMMENDATIONS = Table(
    "recommendations",
    "user_id id, rank int, item_id id, score float, fallback boolean, run string, model string",
    key=("run", "user_id", "rank"),
    written_by="recommend",
    partition_by=("run",),
)
METRICS = Table(
    "metrics",
    "run string, model string, kind string, dataset string, split string, protocol string, segment string, "
    "metric string, k int, value double, users long, at timestamp, standard_error double, low double, high double",
    key=("run", "segment", "metric", "k"),
    written_by="evaluate",
)
TRIALS = Table(
    "trials",
    "run string, trial int, dataset string, kind string, settings string, metric string, value double, "
    "spread double, seconds double, at timestamp",
    key=("run", "trial"),
    written_by="tune",
)

# --- Parquet tables of a run --------------------------------------------------------------------------------------

SPLIT = Table(
    "train | validation | test",
    # implicit: value 1 and a confidence; explicit: the rating and confidence 1
    # with features: rows binary, weights binary, entries of who asks: int32 and float32 (`sparkrec.fields`)
    "user long, item long, value float, confidence float, timestamp timestamp",
    key=("user", "item"),
    written_by="prepare",
)
CANDIDATES = Table("candidates", "user long, item long", key=("user", "item"), written_by="prepare")
DATASET_USERS = Table("users", "user long, user_id id, train_count long", key=("user",), written_by="prepare")
DATASET_ITEMS = Table("items", "item long, item_id id, train_count long", key=("item",), written_by="prepare")
SEQUENCES = Table(
    "sequences",
    # train events of a user, or of one of its sessions, in the order of time; with windows, one row for each
    "user long, session int, place long, items array<long>",
    key=("user", "place"),
    written_by="prepare",
)
USER_FEATURES = Table(
    "user_features",
    # what is known of a user from `since` on; null: from ever
    "user long, since timestamp, rows binary, weights binary",
    key=("user", "since"),
    written_by="prepare",
)
ITEM_FEATURES = Table(
    "item_features",
    "item long, since timestamp, rows binary, weights binary",
    key=("item", "since"),
    written_by="prepare",
)
FIELDS = Table(
    "fields",
    # what `fields.FieldCode` says; settings as JSON
    "name string, side string, settings string, type string, first long, rows long, mean double, deviation double, "
    "low double, high double, edges array<double>",
    key=("name",),
    written_by="prepare",
)
VOCABULARY = Table(
    "vocabulary", "field string, category string, row long", key=("field", "category"), written_by="prepare"
)
MODEL_USERS = Table(
    "users",
    # dense: `index` is null and `value` has the model's full size; sparse: ascending positions and their values
    "user long, index array<int>, value array<float>",
    key=("user",),
    written_by="train",
)
MODEL_ITEMS = Table("items", "item long, index array<int>, value array<float>", key=("item",), written_by="train")


def named(table: Table, interactions: str) -> str:
    """Name of a table that belongs to one interactions table: `interactions_users` of `plays` is `plays_users`."""
    return table.name.replace(INTERACTIONS.name, interactions, 1)
