"""Rows in this process and rows on Spark: the same results, and who decides where a plan is carried out."""

import gc
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import functions as F

from sparkrec.errors import ConfigError
from sparkrec.spark.in_place import LocalRows, carry_out, computed
from sparkrec.spark.platform import few
from sparkrec.spark.platform.memory import bytes_of
from sparkrec.spark.runner import RowFunction, SparkRows

pytestmark = pytest.mark.spark

TABLE = pa.table(
    {
        "key": pa.array([3, 1, 2, 1, 3, 3], pa.int64()),
        "name": ["c", "a", "b", None, "c", "d"],
        "value": pa.array([1.5, None, 2.0, 4.0, -1.0, 0.5], pa.float32()),
        "list": [[1, 2], [], [3], None, [4, 5, 6], [7]],
    }
)
OTHER = pa.table({"key": pa.array([1, 3, 9], pa.int64()), "more": ["one", "three", "nine"]})


@dataclass
class Doubled:
    """(key, twice): any number of batches in, as many out."""

    schema = pa.schema([("key", pa.int64()), ("twice", pa.int64())])

    def __call__(self, batches):
        for batch in batches:
            yield pa.RecordBatch.from_pydict({"key": batch["key"], "twice": np.array(batch["key"]) * 2}, self.schema)


@dataclass
class Summed:
    """(key, n, total) of a group."""

    schema = pa.schema([("key", pa.int64()), ("n", pa.int64()), ("total", pa.float64())])

    def __call__(self, group):
        total = float(np.nansum(group["value"].to_pandas().to_numpy(np.float64)))
        columns = {"key": [group["key"][0].as_py()], "n": [len(group)], "total": [total]}
        return pa.Table.from_pydict(columns, self.schema)


@dataclass
class Lowest:
    """(key, value): the first of each key."""

    schema = pa.schema([("key", pa.int64()), ("value", pa.float32())])

    def __call__(self, batches):
        seen = None
        for row in (row for batch in batches for row in batch.to_pylist()):
            if row["key"] != seen and row["value"] is not None:
                seen = row["key"]
                yield pa.RecordBatch.from_pylist([row], self.schema)


@dataclass
class Paired:
    schema = pa.schema([("key", pa.int64()), ("more", pa.string())])

    def __call__(self, batches):
        for batch in batches:
            yield batch.select(["key", "more"])


STEPS = {
    "select": lambda rows, other: rows.select("key", label="name"),
    "named": lambda rows, other: rows.select("key", "name").named("a b", "c.d"),
    "where_null": lambda rows, other: rows.where_null("name"),
    "where_present": lambda rows, other: rows.where_present("value"),
    "where_at_least": lambda rows, other: rows.where_at_least("value", 1),
    "where_below": lambda rows, other: rows.where_below("value", 1),
    "where_not_finite": lambda rows, other: rows.where_not_finite("value", "key"),
    "union": lambda rows, other: rows.union(other),
    "none": lambda rows, other: rows.none(),
    "counted": lambda rows, other: rows.counted("key"),
    "counted by two": lambda rows, other: rows.where_present("name").counted("key", "name"),
    "where_is": lambda rows, other: rows.where_is("name", "c"),
    "where_is a number": lambda rows, other: rows.where_is("key", 3),
    "where_is_not": lambda rows, other: rows.where_is_not("name", "c"),
    "joined": lambda rows, other: rows.joined(other, "key"),
    "joined, every row": lambda rows, other: rows.joined(other, "key", every=True),
    "joined by two": lambda rows, other: rows.joined(
        rows.where_present("name").select("key", "name", twice="key").distinct(), "key", "name", every=True
    ),
    "only": lambda rows, other: rows.only(other, "key"),
    "without": lambda rows, other: rows.without(other, "key"),
    "distinct": lambda rows, other: rows.select("key", "name").distinct(),
    "filled": lambda rows, other: rows.filled(
        one=pa.scalar(1.0, pa.float32()), never=pa.scalar(None, pa.timestamp("us", "UTC"))
    ),
    "coalesced": lambda rows, other: rows.coalesced(value=pa.scalar(7.5), name=pa.scalar("nobody")),
    "greatest of different keys": lambda rows, other: (
        rows.select("value", "name", "key").distinct().greatest("key", "name")
    ),
    "greatest of itself": lambda rows, other: rows.select("key", "name").greatest("key", "name"),
    "greatest": lambda rows, other: rows.select("key", "value", "name").greatest("key"),
    "least": lambda rows, other: rows.select("key", "value", "name").least("key"),
    "map_rows": lambda rows, other: rows.map_rows(Doubled()),
    "map_rows, none": lambda rows, other: rows.none().map_rows(Doubled()),
    "map_sorted": lambda rows, other: rows.select("key", "value").map_sorted(["key"], Lowest(), then=["value"]),
    "map_groups": lambda rows, other: rows.map_groups("key", Summed()),
    "map_groups, none": lambda rows, other: rows.none().map_groups("key", Summed()),
    "map_pairs": lambda rows, other: rows.select("key").map_pairs(other.select("more"), Paired(), "right"),
    "pack": lambda rows, other: rows.where_present("list").pack("key", {"list": np.int64}, None),
    "held": lambda rows, other: rows.partitioned("key", 2).held("key", 2, few_level()).computed(),
}


def few_level():
    from pyspark import StorageLevel

    return StorageLevel.MEMORY_ONLY


@pytest.fixture
def limit(spark):
    """Sets what the setting allows, for one test."""

    def allow(value):
        spark.conf.set(few.SETTING, value)

    yield allow
    spark.conf.unset(few.SETTING)


def in_order(table):
    return sorted(map(repr, table.to_pylist()))


@pytest.mark.parametrize("step", STEPS)
def test_a_step_has_the_same_rows_in_place_and_on_spark(spark, step):
    here = STEPS[step](LocalRows(spark, TABLE), LocalRows(spark, OTHER))
    there = STEPS[step](SparkRows(spark.createDataFrame(TABLE)), SparkRows(spark.createDataFrame(OTHER)))
    assert here.columns == there.columns
    assert in_order(here.table()) == in_order(there.table())
    assert in_order(here.frame().toArrow()) == in_order(there.frame().toArrow())
    assert here.count() == there.count()


def test_rows_are_in_order_and_described_alike(spark):
    here, there = LocalRows(spark, TABLE), SparkRows(spark.createDataFrame(TABLE))
    assert here.select("name", "key").sorted("key", "name").table()["key"].to_pylist() == [1, 1, 2, 3, 3, 3]
    assert there.select("name", "key").sorted("key", "name").table()["key"].to_pylist() == [1, 1, 2, 3, 3, 3]
    for one, two in zip(here.described("value", "key"), there.described("value", "key"), strict=True):
        assert one == pytest.approx(two)
    assert here.measured("list", here) == there.measured("list", there) == [(6, 7), (6, 7)]
    none = here.none().described("value")[0]
    assert none == there.none().described("value")[0] == (0, None, None, None, None, 0)


def test_rows_are_written_instead_of_what_was_there(spark, tmp_path):
    folder = str(tmp_path / "rows")
    for rows in (SparkRows(spark.createDataFrame(TABLE)), LocalRows(spark, TABLE)):
        rows.write(folder)
        assert in_order(spark.read.parquet(folder).toArrow()) == in_order(TABLE)


def where_of(rows):
    return type(rows)


@pytest.mark.parametrize(
    ("value", "where"),
    [("never", SparkRows), ("always", LocalRows), ("10", SparkRows), ("1m", LocalRows), ("", LocalRows)],
)
def test_the_setting_says_where_a_plan_is_carried_out(spark, limit, value, where):
    limit(value)
    assert carry_out("test", where_of, spark.createDataFrame(TABLE)) is where


def test_what_the_setting_cannot_be_is_refused(spark, limit):
    limit("plenty")
    with pytest.raises(ConfigError, match=r"inPlace.maxBytes: found 'plenty', expected never, always, or a number"):
        carry_out("test", where_of, spark.createDataFrame(TABLE))


def test_rows_that_are_more_than_spark_said_stay_there(spark, limit):
    """A plan that makes many rows of one is counted first; what its statistics hide is let go of when it is here."""
    limit("64k")
    exploded = spark.createDataFrame([(1,)], "key long").selectExpr("explode(sequence(1, 100000)) AS key")
    assert carry_out("test", where_of, exploded) is SparkRows
    packed = spark.createDataFrame([(1,)], "key long").selectExpr("repeat('long', 100000) AS key")
    assert carry_out("test", where_of, packed) is SparkRows


def test_rows_of_files_are_more_than_these_and_are_not_fetched_to_find_out(spark, limit, monkeypatch, tmp_path):
    folder = str(tmp_path / "rows")
    spark.range(1 << 17).selectExpr("id % 64 AS key", "id % 4 AS value").coalesce(1).write.parquet(folder)
    size = sum(each.stat().st_size for each in (tmp_path / "rows").glob("*.parquet"))
    monkeypatch.setattr(few, "_fetched", lambda frame: pytest.fail("fetched"))
    limit(str(3 * size))
    assert (
        carry_out("test", where_of, spark.read.parquet(folder).groupBy("key", "value").agg(F.count("*"))) is SparkRows
    )
    monkeypatch.undo()
    limit("4m")
    assert carry_out("test", where_of, spark.read.parquet(folder)) is LocalRows


def test_rows_whose_size_spark_does_not_know_are_counted_where_that_is_cheap(spark, limit, tmp_path):
    """Lists of Python, and what was computed before, are infinite to Spark; what is read from files may be."""
    of_list = spark.createDataFrame([(n, n) for n in range(1000)], "key long, value long")
    for frame in (of_list, of_list.repartition(3).localCheckpoint()):
        for size, where in (("20k", LocalRows), ("10k", SparkRows)):
            limit(size)
            assert carry_out("test", where_of, frame) is where
    limit("10k")
    texts = spark.createDataFrame([(1, "x" * 20_000)], "key long, text string")
    assert carry_out("test", where_of, texts) is SparkRows
    limit("1m")
    (tmp_path / "lines").write_text("one\ntwo")
    of_file = spark.sparkContext.textFile(str(tmp_path / "lines")).map(lambda line: (line,))
    assert carry_out("test", where_of, spark.createDataFrame(of_file, "line string")) is SparkRows


def test_a_worker_does_not_look_for_garbage_in_modules(spark):
    """Spark's daemon collects after each task: a second task finds next to nothing to look at."""

    def tell(batches):
        gc.collect()
        looked_at = len(gc.get_objects())
        for _ in batches:
            yield pa.RecordBatch.from_pydict({"key": [looked_at]})

    rows = SparkRows(spark.range(1).coalesce(1)).named("key")
    tasks = [rows.map_rows(RowFunction(pa.schema([("key", pa.int64())]), tell)) for _ in range(3)]
    first, *_, last = (task.table()["key"][0].as_py() for task in tasks)
    assert last < 10_000, f"{first} objects in the first task, {last} in the last"


def test_a_plan_for_which_memory_is_too_small_begins_again_on_spark(spark, limit, caplog):
    limit("always")

    def plan(rows):
        if isinstance(rows, LocalRows):
            raise MemoryError
        return rows.count()

    assert carry_out("als", plan, spark.createDataFrame(TABLE)) == 6
    assert "als: too little memory in this process; beginning again on Spark" in caplog.text


def test_an_error_of_a_task_in_place_is_its_own(spark, limit):
    limit("always")

    class Breaks(Doubled):
        def __call__(self, batches):
            raise ValueError("found 3, expected 4")
            yield

    with pytest.raises(ValueError, match="found 3, expected 4"):
        carry_out("test", lambda rows: rows.map_rows(Breaks()), spark.createDataFrame(TABLE))


def test_rows_that_were_made_here_are_not_fetched_again(spark, limit, monkeypatch):
    limit("always")
    frame = computed("test", spark.createDataFrame(TABLE))
    assert computed("test", frame) is frame
    monkeypatch.setattr(few, "_fetched", lambda frame: pytest.fail("fetched"))
    assert carry_out("test", lambda rows: rows.count(), frame) == 6
    assert carry_out("test", where_of, frame.select("key"), fetch=False) is SparkRows


@pytest.mark.parametrize(("text", "size"), [("512", 512), ("4k", 4096), ("2MB", 2 << 20), ("1g", 1 << 30)])
def test_sizes_are_read_as_spark_reads_them(text, size):
    assert bytes_of(text) == size


def test_no_row_is_lost_behind_a_part_without_rows(spark):
    some, none = pa.table({"n": [1, 2]}), pa.table({"n": pa.array([], pa.int64())})
    table = pa.concat_tables([none, some, none, none, some, none])
    for frame in (few.frame_of(spark, table), SparkRows(spark.range(1)).of(table).frame()):
        assert sorted(row.n for row in frame.collect()) == [1, 1, 2, 2]
