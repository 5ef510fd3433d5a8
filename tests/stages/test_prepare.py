"""The prepare stage on small logs: what is written, what is refused, what a second run does."""

from datetime import datetime, timezone

import pytest
from pydantic import ValidationError

from sparkrec import tables
from sparkrec.config import (
    ExplicitFeedback,
    FoldSplit,
    GivenSplit,
    ImplicitFeedback,
    LeaveLastOut,
    PrepareSettings,
    RatioSplit,
    RecentDays,
)
from sparkrec.errors import InputError, PrepareError
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.platform.lake import Lake
from sparkrec.stages import prepare as stage
from sparkrec.stages.prepare import inputs, prepare

pytestmark = pytest.mark.spark


def micros(day):
    """A day of January 2024, in microseconds since 1970."""
    return int(datetime(2024, 1, day, tzinfo=timezone.utc).timestamp()) * 1_000_000


def at(second):
    return datetime(2024, 1, 1, 0, 0, second)


def put(lake, name, rows, ids="long", more="", partitions=None):
    """A table as ingest writes it; rows are user, item and, from the left, rating, timestamp, event, context."""
    schema = f"user_id {ids}, item_id {ids}, rating double, timestamp timestamp, event string, batch string{more}"
    filled = [tuple(row) + (1.0, None, None)[len(row) - 2 :] for row in rows]
    frame = lake.spark.createDataFrame([(*row[:5], "b", *row[5:]) for row in filled], schema)
    lake.append(name, frame if partitions is None else frame.repartition(partitions), f"put-{name}")


def settings(lake, **changes):
    return PrepareSettings(lake=lake.root, dataset="small", **changes)


def rows(frame, *columns):
    return sorted(tuple(row[column] for column in columns or frame.columns) for row in frame.collect())


def test_a_dataset_is_what_its_settings_say(lake):
    events = [
        ("u1", "a", 1.0, at(1)),
        ("u1", "b", 1.0, at(2)),
        ("u1", "c", 1.0, at(3)),
        ("u1", "a", 2.0, at(4)),
    ]
    events += [("u2", "b", 1.0, at(1)), ("u2", "c", 1.0, at(2)), ("u3", "d", 1.0, at(1))]
    put(lake, "plays", events, ids="string")
    wanted = settings(
        lake,
        interactions="plays",
        feedback=ImplicitFeedback(confidence="linear"),
        split=LeaveLastOut(validation=0),
    )
    run = prepare(wanted, lake)
    dataset = Dataset.open(lake, "small")

    for frame, table in (
        (dataset.train, tables.SPLIT),
        (dataset.validation, tables.SPLIT),
        (dataset.test, tables.SPLIT),
        (dataset.users, tables.DATASET_USERS),
        (dataset.items, tables.DATASET_ITEMS),
    ):
        columns = table.columns.replace(" id,", " string,").replace("long", "bigint").split(", ")
        assert [f"{name} {kind}" for name, kind in frame.dtypes] == columns
    users, items = dict(rows(dataset.users, "user", "user_id")), dict(rows(dataset.items, "item", "item_id"))
    assert sorted(users) == [0, 1, 2]
    assert sorted(items) == [0, 1, 2, 3]

    def named(frame):
        return sorted((users[row.user], items[row.item], row.confidence, row.timestamp) for row in frame.collect())

    assert named(dataset.train) == [
        ("u1", "b", 2.0, at(2)),
        ("u1", "c", 2.0, at(3)),
        ("u2", "b", 2.0, at(1)),
        ("u3", "d", 2.0, at(1)),
    ]
    assert named(dataset.test) == [("u1", "a", 3.0, at(4)), ("u2", "c", 2.0, at(2))]
    assert dataset.validation.isEmpty()
    assert dataset.candidates is None
    assert rows(dataset.users, "user_id", "train_count") == [("u1", 2), ("u2", 1), ("u3", 1)]
    assert rows(dataset.items, "item_id", "train_count") == [("a", 0), ("b", 2), ("c", 1), ("d", 1)]

    manifest = run.manifest
    assert manifest["found"] == 7
    assert manifest["counts"] == {
        "rows": 6,
        "users": 3,
        "items": 4,
        "density": 0.5,
        "train": {"rows": 4, "users": 3, "items": 3},
        "validation": {"rows": 0, "users": 0, "items": 0},
        "test": {"rows": 2, "users": 2, "items": 2},
    }
    per_user = manifest["interactions_per_user"]
    assert per_user == pytest.approx({"min": 1, "5%": 1.1, "25%": 1.5, "50%": 2, "75%": 2.5, "95%": 2.9, "max": 3})
    assert manifest["ids"]["users"] == {
        "table": "plays_users",
        "id": lake.table_id("plays_users"),
        "version": 0,
    }
    assert prepare(wanted, lake).manifest == manifest  # finished: nothing is done again


def test_order_and_partitioning_of_the_log_change_nothing(lake, spark, tmp_path):
    events = [(u, i * i % 17, 0.1 * u + i / 7, at((u * i) % 50)) for u in range(12) for i in range(u, 20)]
    other = Lake(spark, str(tmp_path / "other"))
    put(lake, "interactions", events, partitions=1)
    put(other, "interactions", events[::-1], partitions=5)
    tables_of = []
    for each in (lake, other):
        wanted = settings(
            each,
            dedup="sum",
            feedback=ImplicitFeedback(confidence="log"),
            min_item_interactions=6,
            split=RatioSplit(test=0.2, validation=0.2),
        )
        prepare(wanted, each)
        dataset = Dataset.open(each, "small")
        parts = (dataset.train, dataset.validation, dataset.test, dataset.users, dataset.items)
        tables_of.append([rows(part) for part in parts])
    assert all(tables_of[0])
    assert tables_of[0] == tables_of[1]


def test_a_given_split_keeps_its_test_rows_and_its_candidates(lake):
    put(lake, "interactions", [(u, i, 2.0) for u in (1, 2, 3) for i in (10, 20, 30)])
    given = [
        (1, 40, 5.0, None, None, [50, 10]),  # 40 and 50 are in no train row
        (1, 20, 1.0, None, None, [50, 20]),  # seen in train: a given test stays as it is
        (9, 10, 5.0, None, None, [60]),  # user 9 is in no train row
        (2, 30, 0.5, None, None, [70]),  # below the threshold, with its candidates
    ]
    put(lake, "later", given, more=", negatives array<int>")
    wanted = settings(
        lake,
        dedup="max",
        feedback=ImplicitFeedback(threshold=1.0),
        min_user_interactions=3,
        split=GivenSplit(test="later", candidates="negatives", validation_items=1),
    )
    assert set(inputs(wanted, lake)) == {"interactions", "test"}
    run = prepare(wanted, lake)
    dataset = Dataset.open(lake, run.reference)
    users, items = dict(rows(dataset.users, "user", "user_id")), dict(rows(dataset.items, "item", "item_id"))

    def named(frame):
        return [(users[user], items[item]) for user, item in rows(frame, "user", "item")]

    assert sorted(named(dataset.test)) == [(1, 20), (1, 40), (9, 10)]
    assert dataset.candidates is not None
    assert sorted(named(dataset.candidates)) == [(1, 10), (1, 20), (1, 40), (1, 50), (9, 10), (9, 60)]
    assert dataset.train.count() == 6
    assert dataset.validation.count() == 3
    assert dict(rows(dataset.users, "user_id", "train_count")) == {1: 2, 2: 2, 3: 2, 9: 0}
    counts = dict(rows(dataset.items, "item_id", "train_count"))
    assert sorted(counts) == [10, 20, 30, 40, 50, 60]
    assert [counts[item] for item in (40, 50, 60)] == [0, 0, 0]
    assert run.manifest["counts"]["items"] == 6


def test_one_item_is_enough_for_a_fold(lake):
    put(lake, "interactions", [(user, 1, 4.0, at(0)) for user in range(20)])
    run = prepare(settings(lake, feedback=ExplicitFeedback(), split=FoldSplit(folds=2)), lake)
    counts = run.manifest["counts"]
    assert (counts["users"], counts["items"], counts["rows"]) == (20, 1, 20)
    assert counts["train"]["rows"] + counts["test"]["rows"] == 20


def test_what_was_killed_is_completed_by_running_it_again(lake, monkeypatch):
    put(lake, "interactions", [(u, i, 1.0, at(i)) for u in (1, 2) for i in (10, 20, 30)])
    write = stage._write

    def killed(frame, run, table):
        write(frame.limit(1), run, table)
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(settings(lake), lake)
    with pytest.raises(InputError, match="no finished prepare run 'small'"):
        Dataset.open(lake, "small")
    monkeypatch.setattr(stage, "_write", write)
    prepare(settings(lake), lake)
    dataset = Dataset.open(lake, "small")
    assert (dataset.train.count(), dataset.validation.count(), dataset.test.count()) == (2, 2, 2)
    assert lake.table("interactions_users").count() == 2


@pytest.fixture(scope="module")
def faulty(spark, tmp_path_factory):
    """A lake of tables that have something wrong with them."""
    lake = Lake(spark, str(tmp_path_factory.mktemp("faulty")))
    put(lake, "interactions", [(17, 4021), (17, 1, 1.0, at(1)), (3, 4, -2.0, at(2)), (3, 5, 1.0, at(2))])
    put(lake, "named", [("17", "4021")], ids="string")
    put(lake, "empty", [])
    put(
        lake,
        "listed",
        [(17, 8, 1.0, None, None, [1, None]), (17, 1, 1.0, None, None, [2])],
        more=", l array<long>",
    )
    lake.append("foreign", spark.range(3), "t")
    return lake


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"interactions": "empty", "dedup": "max"},
            "table 'empty' has no rows at version 0. Ingest some first.",
        ),
        (
            {"interactions": "foreign"},
            "column 'user_id' of table 'foreign' is missing, expected bigint or string",
        ),
        (
            {},
            r"dedup 'last' and split 'leave_last_out' cannot do without timestamps, but 'timestamp' is null in "
            r"1 of 4 interactions of 'interactions' \(first: user 17, item 4021\). Drop them at ingest",
        ),
        ({"dedup": "sum"}, "^split 'leave_last_out' cannot do without timestamps"),
        ({"split": FoldSplit()}, "^dedup 'last' cannot do without timestamps"),
        (
            {"dedup": "max", "split": FoldSplit(), "event_weights": {}},
            r"event_weights lists none, but there are events of kind null \(4 rows\)",
        ),
        (
            {"dedup": "max", "split": FoldSplit(), "feedback": ImplicitFeedback(threshold=9.0)},
            "none of 4 rows of 'interactions' is left after event_weights and feedback.threshold. Lower",
        ),
        (
            {"dedup": "max", "split": FoldSplit(), "feedback": ImplicitFeedback(confidence="log")},
            r"implicit feedback with confidence 'log' takes ratings from 0 on that fit 32 bits, but 1 of 4 do "
            r"not \(first: user 3, item 4\)",
        ),
        (
            {"dedup": "max", "split": FoldSplit(), "min_item_interactions": 2},
            "nothing is left of 4 interactions of 2 users with 4 items.*Lower min_user_interactions or",
        ),
        (
            {"dedup": "max", "split": GivenSplit(test="named")},
            "user_id is string in 'named', but bigint in 'interactions'. Ingest both with one id_type",
        ),
        (
            {"dedup": "max", "split": GivenSplit(test="empty")},
            "'given' leaves no test interactions among 4: table 'empty' has none",
        ),
        (
            {"dedup": "max", "split": GivenSplit(test="listed", candidates="ids")},
            "candidates column 'ids' of table 'listed' is missing, expected array<bigint>",
        ),
        (
            {"dedup": "max", "split": GivenSplit(test="listed", candidates="l")},
            r"is null, empty or holds nulls in 1 of 2 rows \(first: user 17, item 8\)",
        ),
    ],
)
def test_what_cannot_be_prepared_is_refused_before_anything_is_written(faulty, changes, message):
    with pytest.raises(PrepareError, match=message):
        prepare(settings(faulty, **changes), faulty)
    assert not faulty.has_table("interactions_users")
    with pytest.raises(InputError, match="no finished prepare run"):
        faulty.finished_run("prepare", "small")


def test_a_table_or_version_that_is_not_there_is_refused(faulty):
    with pytest.raises(InputError, match="there is no table 'nothing' in the lake.*Run `sparkrec ingest` first"):
        prepare(settings(faulty, interactions="nothing"), faulty)
    with pytest.raises(InputError, match="table 'interactions' has no version 7 to read: the latest is 0"):
        inputs(settings(faulty, version=7), faulty)


def test_a_test_table_that_is_the_train_table_is_refused(lake):
    with pytest.raises(ValidationError, match="split.test names the interactions table 'interactions' itself"):
        settings(lake, split=GivenSplit(test="interactions"))


@pytest.mark.parametrize(("threshold", "test"), [(None, [("u", "late")]), (1.0, [("u", "kept")])])
def test_days_are_counted_back_from_the_latest_event_that_stays(lake, threshold, test):
    start = datetime(2024, 1, 1)
    days = [("first", 5.0, 1), ("kept", 5.0, 4), ("late", 0.5, 9)]
    put(lake, "plays", [("u", item, rating, start.replace(day=day)) for item, rating, day in days], ids="string")
    run = prepare(
        settings(
            lake, interactions="plays", feedback=ImplicitFeedback(threshold=threshold), split=RecentDays(test=2.0)
        ),
        lake,
    )
    found = Dataset.open(lake, run.reference)
    named = found.test.join(found.users, "user").join(found.items, "item")
    assert rows(named, "user_id", "item_id") == test
    until = 9 if threshold is None else 4
    assert found.times("test") == (micros(until), micros(until))
    assert found.times("train", "validation") == (micros(1), micros(4 if threshold is None else 1))
    assert found.times("validation") is None
