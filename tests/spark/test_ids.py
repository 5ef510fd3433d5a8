"""Ids are given once, without gaps, whatever the partitioning and however many writers."""

import threading
from datetime import date, datetime, timedelta
from decimal import Decimal

import pytest
from pyspark.sql import functions as F

from sparkrec.errors import PrepareError
from sparkrec.spark.data.ids import assign, number
from sparkrec.spark.data.numbering import BUCKETS

pytestmark = pytest.mark.spark


def raw(spark, first, last):
    return spark.range(first, last).select((F.col("id") * 7919).alias("user_id"))


class ConcurrentTransactionException(Exception):
    """Delta's, by its name: not every version of it has its module in the wheel."""


def given(table):
    """Raw id to integer, once both are known to be unique."""
    rows = [(row.user_id, row.user) for row in table.frame.collect()]
    ids = dict(rows)
    assert len(ids) == len(set(ids.values())) == len(rows)
    return ids


def test_an_id_never_changes_once_given_and_new_ones_follow_without_gaps(spark, lake):
    before = given(assign(lake, "plays_users", raw(spark, 0, 300), "user"))
    assert sorted(before.values()) == list(range(300))

    table = assign(lake, "plays_users", raw(spark, 200, 500).repartition(5).unionAll(raw(spark, 0, 10)), "user")
    after = given(table)
    assert {each: after[each] for each in before} == before
    assert sorted(after.values()) == list(range(500))
    assert table.pin == {"table": "plays_users", "id": lake.table_id("plays_users"), "version": 1}

    assert assign(lake, "plays_users", raw(spark, 0, 500), "user").pin == table.pin


def test_ids_do_not_depend_on_order_and_partitioning(spark, lake):
    names = spark.createDataFrame([(name,) for name in ["b", "a", "B", "ä", "", "a b", "日本"]], "user_id string")
    one = given(assign(lake, "one_users", names.coalesce(1), "user"))
    other = given(assign(lake, "other_users", names.orderBy(F.desc("user_id")).repartition(4), "user"))
    assert one == other


IDS = {
    "int": [2, -1, 7],
    "long": [2, -1, 2**40],
    "boolean": [True, False],
    "double": [0.5, -2.0, float("inf")],
    "decimal(10,2)": [Decimal("1.50"), Decimal("-7.25")],
    "date": [date(2024, 1, 1), date(1960, 5, 3)],
    "timestamp": [datetime(2024, 1, 1, 8), datetime(1960, 5, 3)],
    "binary": [b"", b"\x00", b"\xff\xfe"],
    "string": ["", "a", "A", "ä", "日本", "x" * 40],
    "interval day to second": [timedelta(hours=5), timedelta(days=-1)],
}


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("kind", IDS)
def test_ids_of_every_type_get_the_same_numbers_wherever_they_are(spark, kind):
    ids = spark.createDataFrame([(each,) for each in IDS[kind]] * 3, f"id {kind}").repartition(3)
    found = {row.id: row.number for row in number(ids, "number", 5).collect()}
    assert sorted(found.values()) == list(range(5, 5 + len(IDS[kind])))
    alone = spark.createDataFrame([(each,) for each in reversed(IDS[kind])], f"id {kind}")
    assert {row.id: row.number for row in number(alone, "number", 5).collect()} == found
    hashed = alone.select("id", F.pmod(F.xxhash64("id"), F.lit(BUCKETS)).alias("bucket")).collect()
    if kind in ("long", "string", "binary"):
        assert sorted(found, key=found.get) == [row.id for row in sorted(hashed, key=lambda row: (row.bucket, row.id))]


@pytest.mark.usefixtures("everywhere")
def test_ids_of_a_bucket_follow_one_another_over_batches(spark):
    ids = spark.range(3000).select(F.concat(F.lit("user "), "id").alias("id"))
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", 7)
    try:
        found = {row.id: row.number for row in number(ids.union(ids), "number").collect()}
    finally:
        spark.conf.unset("spark.sql.execution.arrow.maxRecordsPerBatch")
    assert sorted(found.values()) == list(range(3000))
    assert found == {row.id: row.number for row in number(ids, "number").collect()}


def test_writers_at_the_same_time_never_give_one_id_twice(spark, lake):
    failed = []

    def write(first):
        try:
            ids = given(assign(lake, "plays_users", raw(spark, first, first + 60), "user"))
            assert all(each * 7919 in ids for each in range(first, first + 60))
        except BaseException as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(first,)) for first in (0, 30, 60)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not failed
    ids = given(assign(lake, "plays_users", raw(spark, 0, 1), "user"))
    assert sorted(ids.values()) == list(range(120))


def test_a_writer_that_loses_the_race_numbers_on_from_the_winner(spark, lake, monkeypatch):
    append = lake.append

    def overtaken(name, frame, transaction, *more):
        monkeypatch.setattr(lake, "append", append)
        winner = spark.createDataFrame([(0, 5), (1, 6)], "user long, user_id long")
        append(name, winner, transaction)
        raise ConcurrentTransactionException("another writer committed this transaction")

    monkeypatch.setattr(lake, "append", overtaken)
    ids = given(assign(lake, "plays_users", spark.createDataFrame([(5,), (7,)], "user_id long"), "user"))
    assert ids == {5: 0, 6: 1, 7: 2}


def test_an_id_table_that_was_set_back_is_refused(spark, lake):
    ids = spark.createDataFrame([(0, 100), (1, 101)], "user long, user_id long")
    lake.append("plays_users", ids, "ids-from-0")
    lake.append("plays_users", ids.limit(0), "ids-from-2")  # given, and gone again
    with pytest.raises(PrepareError, match="ids from 2 on have been given before.*Restore its latest version"):
        assign(lake, "plays_users", raw(spark, 4, 9), "user")


def test_another_type_of_id_is_refused_with_both_types(spark, lake):
    lake.append("plays_users", spark.createDataFrame([(0, 5)], "user long, user_id long"), "ids-from-0")
    names = spark.createDataFrame([("5",)], "user_id string")
    with pytest.raises(PrepareError, match="user_id is string in the interactions, but bigint in their id table"):
        assign(lake, "plays_users", names, "user")


def test_a_table_that_holds_no_ids_is_refused(spark, lake):
    lake.append("plays_users", spark.range(3), "t")
    with pytest.raises(PrepareError, match="expected columns user, user_id, found id.*another name"):
        assign(lake, "plays_users", raw(spark, 0, 3), "user")
