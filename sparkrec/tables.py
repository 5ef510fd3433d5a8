"""Every table of a lake: its columns, key, partitioning, and the stage that writes it.

Delta tables are append-only histories that people query; they live under `<lake>/<name>`, or in a schema of a
catalog. The tables of a dataset or a model are plain Parquet in the folder of a run, and exist only once the run's
manifest does.

Ids come in two forms: `user_id` and `item_id` as the log has them (long or string), and `user` and `item`, the
integers that `prepare` gives and never changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Table:
    """One table."""

    name: str
    columns: str
    """As Spark DDL; `id` stands for long or string."""
    key: tuple[str, ...]
    written_by: str
    partition_by: tuple[str, ...] = ()
    """Folders of its files."""
    about: str = ""
    """What a catalog says of it."""
    comments: Mapping[str, str] = field(default_factory=dict)
    """What a catalog says of its columns."""
    required: tuple[str, ...] = ()
    """Columns without nulls, as a catalog demands."""
    checks: Mapping[str, str] = field(default_factory=dict)
    """What holds of every row, in SQL, by a name: a catalog refuses others."""
    read_by: tuple[str, ...] = ()
    """Columns that it is read by, which a catalog clusters it by."""

    @property
    def names(self) -> list[str]:
        """Names of its columns."""
        return re.findall(r"(\w+) [^,<]+(?:<[^>]*>)?(?:, |$)", self.columns)


# --- Delta tables of the lake -------------------------------------------------------------------------------------

_USER, _ITEM = "User, as the log has it", "Item, as the log has it"
_RUN = "Run that wrote the row: the id in the folder of its manifest"
_MODEL = "Model as name@id"

INTERACTIONS = Table(
    "interactions",
    # context columns follow, with the names and types of the source
    "user_id id, item_id id, rating double, timestamp timestamp, event string, batch string",
    key=(),
    written_by="ingest",
    about="Who did what with which item, in batches that are added once and never changed",
    comments={
        "user_id": _USER,
        "item_id": _ITEM,
        "rating": "Rating, count or weight",
        "timestamp": "When it happened, if it is known",
        "event": "Kind of event, if there are kinds",
        "batch": "Batch that the row came with",
    },
    required=("user_id", "item_id", "batch"),
    read_by=("user_id",),
)
REJECTED = Table(
    "interactions_rejected",
    "reason string, source_file string, row string, batch string",
    key=(),
    written_by="ingest",
    about="Rows of the log that were not taken, and why",
    comments={
        "reason": "What is wrong with the row",
        "source_file": "File or table that it is in",
        "row": "The row as JSON",
        "batch": "Batch that it came with",
    },
    required=("reason", "batch"),
    read_by=("batch",),
)
BATCHES = Table(
    "interactions_batches",
    "batch string, content_hash string, state string, rows long, rejected map<string, long>, at timestamp",
    key=("batch",),
    written_by="ingest",
    about="Batches of the log: each is opened before its first row is written, and closed after the last",
    comments={
        "batch": "Id of the batch",
        "content_hash": "What its rows are known by, and how they were read",
        "state": "open or closed",
        "rows": "Rows taken",
        "rejected": "Rows not taken, by reason",
        "at": "When this was written",
    },
    required=("batch", "content_hash", "state"),
    checks={"known_state": "state IN ('open', 'closed')"},
)
FOLLOWED = Table(
    "interactions_followed",
    "name string, number long, state string, how string, source_id string, version long, added long, deleted long, "
    "token string, at timestamp",
    key=("name", "number"),
    written_by="ingest",
    about="How far sources were followed, in steps that are opened before their first row is written",
    comments={
        "name": "Source",
        "state": "open, closed, or refused, of which nothing was written",
        "how": "changes, of the change data feed, or compared, what is there with what was taken",
        "source_id": "Identity of the Delta table: another one at the same place has another",
        "version": "Version up to which its rows are here",
        "added": "Rows added",
        "deleted": "Rows deleted",
    },
    required=("name", "number", "state", "token"),
    checks={"known_state": "state IN ('open', 'closed', 'refused')"},
)
FILES = Table(
    "interactions_files",
    "name string, number long, path string, size long, modified timestamp, digest string, same_as string",
    key=("name", "number", "path"),
    written_by="ingest",
    about="Files of folders that are followed, each of which is taken once",
    comments={
        "name": "Source",
        "number": "Step that took it",
        "digest": "What its rows are known by, whatever their order; null where it has none",
        "same_as": "File of the same rows, which was taken before it; then these were not",
    },
    required=("name", "number", "path"),
)
USERS = Table(
    "interactions_users",
    "user long, user_id id",
    key=("user_id",),
    written_by="prepare",
    about="The integer of each user, which stays",
    comments={"user": "Integer from 0 on", "user_id": _USER},
    required=("user", "user_id"),
    checks={"from_zero": "user >= 0"},
    read_by=("user_id",),
)
ITEMS = Table(
    "interactions_items",
    "item long, item_id id",
    key=("item_id",),
    written_by="prepare",
    about="The integer of each item, which stays",
    comments={"item": "Integer from 0 on", "item_id": _ITEM},
    required=("item", "item_id"),
    checks={"from_zero": "item >= 0"},
    read_by=("item_id",),
)
OF_INTERACTIONS = (INTERACTIONS, REJECTED, BATCHES, FOLLOWED, FILES, USERS, ITEMS)
"""Tables that each table of interactions has of its own."""
RECOMMENDATIONS = Table(
    "recommendations",
    "user_id id, rank int, item_id id, score float, fallback boolean, run string, model string",
    key=("run", "user_id", "rank"),
    written_by="recommend",
    partition_by=("run",),
    about="The best items of each user, by run",
    comments={
        "user_id": _USER,
        "rank": "Place in the list of the user, from 1 on",
        "item_id": _ITEM,
        "score": "What the model gives the item: more is better, within the list of one user",
        "fallback": "Whether the user is unknown to the model and gets what is popular",
        "run": _RUN,
        "model": _MODEL,
    },
    required=("user_id", "rank", "item_id", "run", "model"),
    checks={"from_one": "rank >= 1"},
    read_by=("run", "user_id"),
)
METRICS = Table(
    "metrics",
    "run string, model string, kind string, dataset string, split string, protocol string, segment string, "
    "metric string, k int, value double, users long, at timestamp, standard_error double, low double, high double",
    key=("run", "segment", "metric", "k"),
    written_by="evaluate",
    about="How good models are, by run, segment, metric and cutoff",
    comments={
        "run": _RUN,
        "model": _MODEL,
        "kind": "Kind of model",
        "dataset": "Dataset as name@id",
        "split": "Part of the dataset that was held out: validation or test",
        "protocol": "What each held-out item was ranked among",
        "segment": "Users or items that the value is of",
        "metric": "Name of the metric",
        "k": "Length of the lists; null where all was ranked",
        "value": "Mean over users, or the one value of the model",
        "users": "Users that it is a mean of",
        "at": "When it was measured",
        "standard_error": "Of the mean",
        "low": "Lower end of the interval",
        "high": "Upper end of the interval",
    },
    required=("run", "model", "segment", "metric"),
)
TRIALS = Table(
    "trials",
    "run string, trial int, dataset string, kind string, settings string, metric string, value double, "
    "spread double, seconds double, at timestamp",
    key=("run", "trial"),
    written_by="tune",
    about="Settings that were tried, and what they came to",
    comments={
        "run": _RUN,
        "trial": "Number of the trial, from 0 on",
        "dataset": "Dataset as name@id",
        "kind": "Kind of model",
        "settings": "Settings of the model as JSON",
        "metric": "Name of the metric",
        "value": "Mean over folds",
        "spread": "Standard deviation over folds",
        "seconds": "What the trial took",
        "at": "When it ended",
    },
    required=("run", "trial", "metric"),
)

_NAME = "What the lists are served under"
CHAMPIONS = Table(
    "champions",
    "name string, number long, model string, recommendations string, served string, action string, reason string, "
    "actor string, metrics map<string, double>, token string, at timestamp",
    key=("name", "number"),
    written_by="retrain",
    about="Which model is served since when: the row of a name with the highest number is the champion",
    comments={
        "name": _NAME,
        "number": "Of the change, from 1 on, without holes",
        "model": _MODEL,
        "recommendations": "Run of the lists that are served since, as name@id",
        "served": "Table that they are served from",
        "action": "promote or rollback",
        "reason": "Why, for people",
        "actor": "Who did it",
        "metrics": "What the decision went by",
        "token": "Of the writer, who knows by it that the row is its own",
        "at": "When",
    },
    required=("name", "number", "model", "recommendations", "action", "token"),
    checks={"known_action": "action IN ('promote', 'rollback')"},
)
CHECKS = Table(
    "checks",
    "name string, dataset string, check string, value double, limit double, verdict string, at timestamp",
    key=("name", "dataset", "check"),
    written_by="retrain",
    about="What the data and lists of each night were like, and whether that was fine",
    comments={
        "name": _NAME,
        "dataset": "Dataset as name@id",
        "check": "What was looked at",
        "value": "What was found; null where there was nothing to compare with",
        "limit": "The last value that is fine",
        "verdict": "fine, warned, failed or unknown",
    },
    required=("name", "dataset", "check", "verdict"),
)
DRIFT = Table(
    "drift",
    "name string, run string, model string, seen boolean, measure string, value double, low double, high double, "
    "expected double, users long, at timestamp",
    key=("name", "run", "seen", "measure", "at"),
    written_by="retrain",
    about="What lists are like when they are published, and how good they were once people had seen them",
    comments={
        "name": _NAME,
        "run": "Run of the lists as name@id",
        "model": _MODEL,
        "seen": "Whether they were measured by what people did who had seen them, or when they were published",
        "measure": "What was looked at",
        "low": "Lower end of the interval, where there is one",
        "high": "Upper end of the interval, where there is one",
        "expected": "What the gate had promised, or the same of the lists before; null where there is none",
        "users": "Users that it is of",
    },
    required=("name", "run", "seen", "measure"),
)
LEASES = Table(
    "leases",
    "name string, number long, holder string, until timestamp, token string, at timestamp",
    key=("name", "number"),
    written_by="retrain",
    about="Who may change what is served under a name, and until when: the row with the highest number counts",
    comments={"name": _NAME, "holder": "Process of the run, or of who freed the name", "until": "When it ends"},
    required=("name", "number", "token"),
)
RETRAININGS = Table(
    "retrainings",
    "name string, number long, outcome string, reason string, champion string, challenger string, dataset string, "
    "rows long, metrics map<string, double>, seconds map<string, double>, token string, at timestamp",
    key=("name", "number"),
    written_by="retrain",
    about="What came of each retraining",
    comments={
        "name": _NAME,
        "outcome": "promoted, kept or unchanged; or refused or failed, with the error as the reason",
        "champion": "Model that is served after it",
        "challenger": "Model that was trained",
        "rows": "Interactions that have come since the night before",
        "metrics": "What the decision went by",
        "seconds": "What each step took",
    },
    required=("name", "number", "outcome", "token"),
)

FORGOTTEN = Table(
    "forgotten",
    "request string, users array<string>, removed map<string, long>, reason string, actor string, "
    "final_after timestamp, at timestamp",
    key=("request",),
    written_by="forget",
    about="Receipts of users that were forgotten",
    comments={
        "users": "SHA-256 of their ids, in hexadecimal digits",
        "removed": "Rows that went, by table or run",
        "reason": "Why, for people",
        "actor": "Who did it",
        "final_after": "From when on a VACUUM deletes the files that older versions of the tables have them in",
        "at": "When it was done",
    },
    required=("request", "users"),
)
HISTORIES = (METRICS, TRIALS, CHAMPIONS, CHECKS, LEASES, RETRAININGS, DRIFT, FORGOTTEN)
"""Tables of a lake that are only added to."""

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


def of(table: Table, interactions: str) -> Table:
    """A table that belongs to one interactions table."""
    return replace(table, name=named(table, interactions))
