"""Ids are given once, without gaps, whatever the partitioning and however many writers."""

import threading

import pytest
from delta.exceptions import ConcurrentTransactionException
from pyspark.sql import functions as F

from sparkrec.errors import PrepareError
from sparkrec.spark.data.ids import assign

pytestmark = pytest.mark.spark


def raw(spark, first, last):
    return spark.range(first, last).select((F.col("id") * 7919).alias("user_id"))


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

    def overtaken(name, frame, transaction):
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
