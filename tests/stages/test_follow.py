"""A source that changes is followed: what is here of it is what it has, whatever happens on the way."""

import os
import shutil
import threading

import pytest
from pyspark.sql import functions as F

from sparkrec.config import IngestSettings
from sparkrec.configfile import validate
from sparkrec.errors import ConfigError, IngestError, InputError
from sparkrec.stages.following import follow as following
from sparkrec.stages.ingest import ingest, plan

pytestmark = [pytest.mark.spark, pytest.mark.slow]

COLUMNS = {"user": "u", "item": "i", "rating": "r"}


def settings(lake, source, **more):
    raw = {"lake": lake.root, "source": source, "columns": COLUMNS, "follow": {}, "max_rejected": 0.5}
    return validate(IngestSettings, raw | more, "test")


SCHEMA = "u string, i string, r double"


def overwrite(spark, path, *values):
    """Make these the rows of a Delta table."""
    spark.createDataFrame(list(values), SCHEMA).write.format("delta").mode("overwrite").save(path)


def save(spark, table, *values):
    """Make these the rows of a Parquet table of the catalog."""
    frame = spark.createDataFrame(list(values), SCHEMA)
    frame.write.mode("overwrite").saveAsTable(table, format="parquet")


def rows(lake, table="interactions"):
    """What is here, without the batch, in order."""
    return sorted((row.user_id, row.item_id, row.rating) for row in lake.table(table).collect())


@pytest.fixture
def events(spark, tmp_path, request):
    """Path of a Delta table, with the change data feed unless a test asks for one without."""
    path = str(tmp_path / "events")
    feed = getattr(request, "param", "true")
    spark.sql(
        f"CREATE TABLE delta.`{path}` (u STRING, i STRING, r DOUBLE) USING delta "
        f"TBLPROPERTIES (delta.enableChangeDataFeed = {feed})"
    )
    spark.sql(f"INSERT INTO delta.`{path}` VALUES ('a', 'x', 1), ('a', 'x', 1), ('a', 'x', 1), ('b', 'y', 2)")
    return path


def of(spark, path):
    return sorted(map(tuple, spark.read.format("delta").load(path).where("u IS NOT NULL").collect()))


@pytest.mark.parametrize("events", ["true", "false"], ids=["with a feed", "without"], indirect=True)
def test_appends_updates_and_deletes_arrive_once(spark, lake, events):
    asked = settings(lake, {"path": events, "format": "delta"})
    assert "all that there is" in plan(asked, lake).run
    first = ingest(asked, lake)
    assert (first.rows, first.deleted, first.repeated) == (4, 0, False)
    assert rows(lake) == of(spark, events)
    assert "since version 1" in plan(asked, lake).run
    version = lake.table_version("interactions")
    assert ingest(asked, lake).repeated
    assert lake.table_version("interactions") == version

    spark.sql(f"INSERT INTO delta.`{events}` VALUES ('c', 'x', 1), ('d', 'z', 5), (NULL, 'z', 1)")
    spark.sql(f"UPDATE delta.`{events}` SET r = 3 WHERE u = 'b'")
    spark.sql(f"DELETE FROM delta.`{events}` WHERE u = 'd'")
    second = ingest(asked, lake)
    assert (second.rows, second.deleted, second.rejected) == (2, 1, {"null_user": 1})
    assert rows(lake) == of(spark, events)

    # Of three equal rows one goes, which no key tells from the others.
    spark.createDataFrame(
        [("a", "x", 1.0)] * 2 + [("b", "y", 3.0), ("e", "x", 1.0)], "u string, i string, r double"
    ).write.format("delta").mode("overwrite").save(events)
    third = ingest(asked, lake)
    assert rows(lake) == of(spark, events) == [("a", "x", 1.0)] * 2 + [("b", "y", 3.0), ("e", "x", 1.0)]
    assert third.rejected == {}
    assert lake.table("interactions_rejected").count() == 1

    spark.sql(f"DELETE FROM delta.`{events}` WHERE u = 'a'")
    only = ingest(asked, lake)
    assert (only.rows, only.deleted) == (0, 2)
    assert rows(lake) == of(spark, events)


def test_a_step_that_was_killed_is_carried_out_once(spark, lake, events, monkeypatch):
    asked = settings(lake, {"path": events, "format": "delta"})
    ingest(asked, lake)
    spark.sql(f"DELETE FROM delta.`{events}` WHERE u = 'b'")
    overwrite(spark, events, ("a", "x", 1.0), ("f", "x", 1.0))

    def killed(*_, state, **values):
        if state == "closed":
            raise KeyboardInterrupt
        return add_after(*_, state=state, **values)

    add_after = following.Ledger.add_after
    with monkeypatch.context() as patched:
        patched.setattr(following.Ledger, "add_after", killed)
        with pytest.raises(KeyboardInterrupt):
            ingest(asked, lake)
    spark.sql(f"INSERT INTO delta.`{events}` VALUES ('g', 'x', 1)")
    ingest(asked, lake)
    ingest(asked, lake)
    assert rows(lake) == of(spark, events)
    assert [row.state for row in lake.table("interactions_followed").orderBy("number").collect()] == [
        "open", "closed", "open", "closed", "open", "closed",
    ]  # fmt: skip


def test_a_change_that_is_refused_is_taken_once_the_source_is_mended(spark, lake, events):
    asked = settings(lake, {"path": events, "format": "delta"})
    ingest(asked, lake)
    nobody = ", ".join(f"(NULL, 'z', {n})" for n in range(6))
    spark.sql(f"INSERT INTO delta.`{events}` VALUES {nobody}, ('c', 'x', 1)")
    with pytest.raises(IngestError, match="are rejected .* more than max_rejected = 0.5 of them"):
        ingest(asked, lake)
    spark.sql(f"DELETE FROM delta.`{events}` WHERE u IS NULL")
    ingest(asked, lake)
    assert rows(lake) == of(spark, events)


def test_two_who_follow_at_once_take_a_change_once(spark, lake, events):
    asked = settings(lake, {"path": events, "format": "delta"})
    ingest(asked, lake)
    spark.sql(f"UPDATE delta.`{events}` SET r = 4 WHERE u = 'b'")
    threads = [threading.Thread(target=ingest, args=(asked, lake)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows(lake) == of(spark, events)


def test_a_table_that_was_made_again_is_refused_or_compared(spark, lake, events):
    asked = settings(lake, {"path": events, "format": "delta"})
    ingest(asked, lake)
    shutil.rmtree(events)
    overwrite(spark, events, ("a", "x", 1.0), ("z", "z", 9.0))
    with pytest.raises(
        InputError, match="what has changed in .*events: it was dropped and made again.* follow.on_gap: rebuild"
    ):
        ingest(asked, lake)
    assert len(rows(lake)) == 4
    ingest(settings(lake, {"path": events, "format": "delta"}, follow={"on_gap": "rebuild"}), lake)
    assert rows(lake) == of(spark, events)


def test_a_feed_whose_files_are_gone_is_refused_or_compared(spark, lake, tmp_path):
    path = str(tmp_path / "events")
    spark.sql(
        f"CREATE TABLE delta.`{path}` (u STRING, i STRING, r DOUBLE) USING delta "
        "TBLPROPERTIES (delta.enableChangeDataFeed = true)"
    )
    spark.sql(f"INSERT INTO delta.`{path}` VALUES ('a', 'x', 1), ('b', 'y', 2)")
    asked = settings(lake, {"path": path, "format": "delta"})
    ingest(asked, lake)
    spark.sql(f"DELETE FROM delta.`{path}` WHERE u = 'a'")
    spark.sql(f"INSERT INTO delta.`{path}` VALUES ('c', 'z', 3)")
    files = spark.read.format("delta").load(path).select("_metadata.file_path").collect()
    needed = {row[0].rsplit("/", 1)[1] for row in files}
    for folder, _, names in os.walk(path):
        for name in names:
            if name.endswith(".parquet") and name not in needed and "_delta_log" not in folder:
                os.remove(f"{folder}/{name}")
    with pytest.raises(InputError, match="what changed since version 1 cannot be read"):
        ingest(asked, lake)
    assert rows(lake) == [("a", "x", 1.0), ("b", "y", 2.0)]
    ingest(settings(lake, {"path": path, "format": "delta"}, follow={"on_gap": "rebuild"}), lake)
    assert rows(lake) == of(spark, path)


def test_any_table_of_a_catalog_is_compared(spark, lake):
    save(spark, "followed_plain", ("a", "x", 1.0), ("b", "y", 2.0))
    try:
        asked = settings(lake, {"table": "followed_plain"})
        assert ingest(asked, lake).rows == 2
        assert ingest(asked, lake).repeated
        save(spark, "followed_plain", ("a", "x", 1.0), ("c", "y", 2.0))
        assert (ingest(asked, lake).deleted, rows(lake)) == (1, [("a", "x", 1.0), ("c", "y", 2.0)])
        spark.sql("TRUNCATE TABLE followed_plain")
        with pytest.raises(IngestError, match="holds no rows"):
            ingest(asked, lake)
        assert len(rows(lake)) == 2
    finally:
        spark.sql("DROP TABLE followed_plain")


def write(folder, name, *lines):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["u,i,r", *lines]) + "\n")
    return path


def test_new_files_of_a_folder_are_taken_once(lake, tmp_path, monkeypatch):
    folder = tmp_path / "landing [1]"
    asked = settings(lake, {"path": str(folder).replace("[", "\\[").replace("]", "\\]"), "format": "csv"})
    write(folder, "day 1.csv", "a,x,1", "b,y,2")
    assert ingest(asked, lake).rows == 2
    assert ingest(asked, lake).repeated
    write(folder, "day 2.csv", "a,x,1", "c,z,3")
    write(folder, "again.csv", "b,y,2", "a,x,1")  # the rows of the first day, in another order

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("sparkrec.stages.following.folder.write_step", killed)
        with pytest.raises(KeyboardInterrupt):
            ingest(asked, lake)
    write(folder, "day 3.csv", "d,z,4")
    second = ingest(asked, lake)
    assert second.rows == 2
    assert rows(lake) == [("a", "x", 1.0), ("a", "x", 1.0), ("b", "y", 2.0), ("c", "z", 3.0)]
    assert ingest(asked, lake).rows == 1
    assert ingest(asked, lake).repeated

    os.remove(folder / "day 1.csv")
    assert ingest(asked, lake).repeated
    write(folder, "day 2.csv", "a,x,1", "c,z,3", "e,z,9")
    with pytest.raises(InputError, match=r"1 files that were taken are others now, such as file:.*day%202.csv"):
        ingest(asked, lake)


def test_a_folder_with_another_file_is_compared_where_that_is_asked_for(lake, tmp_path):
    folder = tmp_path / "landing"
    asked = settings(lake, {"path": str(folder), "format": "csv"}, follow={"on_gap": "rebuild"})
    write(folder, "hour=1/log.csv", "a,x,1", "b,y,2")
    ingest(asked, lake)
    write(folder, "hour=1/log.csv", "a,x,1", "b,y,7", "c,z,1")
    write(folder, "hour=2/log.csv", "d,x,1")
    assert (ingest(asked, lake).rows, len(rows(lake))) == (3, 4)
    assert rows(lake) == [("a", "x", 1.0), ("b", "y", 7.0), ("c", "z", 1.0), ("d", "x", 1.0)]
    assert ingest(asked, lake).repeated


def test_what_cannot_be_followed_is_said_before_anything_starts(lake):
    with pytest.raises(ConfigError, match="batch: what is followed has batches of its own"):
        settings(lake, {"table": "t"}, batch="first")
    with pytest.raises(ConfigError, match="a source at one version .* cannot be followed"):
        settings(lake, {"path": "t", "format": "delta", "options": {"versionAsOf": "3"}})
    with pytest.raises(InputError, match="cannot read nowhere: there is no such file or folder"):
        ingest(settings(lake, {"path": "nowhere", "format": "csv"}), lake)


def test_other_sources_of_a_table_are_left_alone(spark, lake, events, tmp_path):
    ingest(settings(lake, {"path": events, "format": "delta"}), lake)
    log = write(tmp_path, "log.csv", "a,x,1", "q,q,1")
    raw = {"lake": lake.root, "source": {"path": str(log), "format": "csv"}, "columns": COLUMNS, "batch": "b"}
    ingest(validate(IngestSettings, raw, "test"), lake)
    spark.sql(f"DELETE FROM delta.`{events}` WHERE u = 'a'")
    ingest(settings(lake, {"path": events, "format": "delta"}), lake)
    assert rows(lake) == [("a", "x", 1.0), ("b", "y", 2.0), ("q", "q", 1.0)]
    assert lake.table("interactions").where(F.col("batch") == "b").count() == 2
