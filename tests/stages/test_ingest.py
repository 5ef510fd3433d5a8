"""Batches go in once, bad rows go aside, drift is noticed."""

import threading

import pytest

from sparkrec.config import ColumnSettings, IngestSettings, SourceSettings
from sparkrec.errors import IngestError, InputError
from sparkrec.stages.ingest import ingest

pytestmark = pytest.mark.spark

COLUMNS = ColumnSettings(user="u", item="i", rating="r", timestamp="t", event="e")
HEADER = "u,i,r,t,e"


@pytest.fixture
def csv(tmp_path, lake):
    """Settings that ingest the given lines."""

    def make(*lines, header=HEADER, name="log", **settings):
        path = tmp_path / f"{name}.csv"
        path.write_text("\n".join([header, *lines]) + "\n")
        source = SourceSettings(path=str(path), format="csv")
        return IngestSettings(**{"lake": lake.root, "source": source, "columns": COLUMNS, **settings})

    return make


def test_bad_rows_go_to_the_rejected_table_with_reason_and_file(lake, csv):
    good = [f"u{n},i{n},1,{n},view" for n in range(30)]
    bad = [
        ",i1,1,5,view", "u1,  ,1,5,view", "u1,i1,,5,view", "u1,i1,abc,5,view", "u1,i1,NaN,5,view",
        "u1,i1,-Infinity,5,view", "u1,i1,1e300,5,view", "u1,i1,1,yesterday,view", "u1,i1,1,1e30,view", "u1,i1,1,,view",
    ]  # fmt: skip
    batch = ingest(csv(*good, *bad, timestamp_format="seconds", max_rejected=0.5), lake)
    assert batch.rows == 30
    assert batch.rejected == {
        "null_user": 1,
        "null_item": 1,
        "null_rating": 2,
        "rating_not_finite": 2,
        "rating_out_of_range": 1,
        "bad_timestamp": 2,
        "null_timestamp": 1,
    }
    rejected = lake.table("interactions_rejected").collect()
    assert sum(batch.rejected.values()) == len(rejected)
    assert all(row.source_file.endswith("log.csv") and row.batch == batch.id for row in rejected)
    assert lake.table("interactions").count() == 30


@pytest.mark.parametrize("text", ["1234", "20200101", "1600000000", "12:30", "T12:30:05"])
def test_a_text_that_may_be_several_times_is_refused_with_samples(lake, csv, text):
    with pytest.raises(IngestError, match=rf"column 't' .* holds texts of digits.* in 1 rows, such as '{text}'"):
        ingest(csv("a,b,1,2020-01-01,x", f"a,c,1,{text},x"), lake)
    assert not lake.has_table("interactions")


def test_an_absurd_rating_is_allowed_when_the_bound_is_raised(lake, csv):
    assert ingest(csv("a,b,1e300,1,x", max_abs_rating=1e301, timestamp_format="seconds"), lake).rows == 1


def test_good_rows_without_a_timestamp_or_an_event_are_counted(lake, csv):
    batch = ingest(csv("a,b,1,2020-01-01,x", "a,c,1,,", "a,d,1,2020-01-01,", on_null_timestamp="keep"), lake)
    assert (batch.rows, batch.nulls) == (3, {"timestamp": 1, "event": 2})
    assert batch.report()["nulls"] == batch.nulls


def test_too_many_rejected_rows_fail_the_job_and_write_nothing(lake, csv):
    with pytest.raises(IngestError, match=r"1 of 2 rows .* \(null_user 1\): more than max_rejected = 0.1"):
        ingest(csv(",b,1,2020-01-01,x", "a,b,1,2020-01-01,x"), lake)
    assert not lake.has_table("interactions")
    assert not lake.has_table("interactions_rejected")


def test_all_rows_rejected_and_an_empty_file_are_errors_of_their_own(lake, csv):
    with pytest.raises(IngestError, match="all 1 rows of .* are rejected"):
        ingest(csv(",b,1,2020-01-01,x", max_rejected=1.0), lake)
    with pytest.raises(IngestError, match="holds no rows"):
        ingest(csv(), lake)


def test_the_same_batch_again_is_a_no_op_in_any_row_order(lake, csv):
    lines = ["a,b,1,2020-01-01,x", "c,d,2,2020-01-02,x"]
    first = ingest(csv(*lines, batch="monday"), lake)
    again = ingest(csv(*reversed(lines), batch="monday", name="copy"), lake)
    assert (first.repeated, again.repeated) == (False, True)
    assert again.rows == 2
    assert lake.table("interactions").count() == 2


def test_the_same_batch_id_with_other_content_is_refused(lake, csv):
    ingest(csv("a,b,1,2020-01-01,x", batch="monday"), lake)
    with pytest.raises(IngestError, match="batch 'monday' .* was ingested with other content"):
        ingest(csv("a,b,2,2020-01-01,x", batch="monday"), lake)
    assert lake.table("interactions").count() == 1


def test_a_batch_that_died_between_its_commits_is_completed_by_running_it_again(lake, csv, monkeypatch):
    settings = csv("a,b,1,2020-01-01,x", ",d,1,2020-01-01,x", batch="monday", max_rejected=0.5)
    append, calls = lake.append, []

    def dies_at(limit):
        def broken(*args, **kwargs):
            calls.append(args[0])
            if len(calls) == limit:
                raise RuntimeError("killed")
            return append(*args, **kwargs)

        return broken

    for limit in (1, 2, 3, 4):
        calls.clear()
        monkeypatch.setattr(lake, "append", dies_at(limit))
        with pytest.raises(RuntimeError, match="killed"):
            ingest(settings, lake)
    monkeypatch.setattr(lake, "append", append)
    assert ingest(settings, lake).rows == 1
    assert lake.table("interactions").count() == 1
    assert lake.table("interactions_rejected").count() == 1


def test_two_ingests_at_once_lose_nothing_and_double_nothing(lake, csv):
    days = [csv(f"u{day},b,1,2020-01-01,x", batch=f"day{day}", name=f"day{day}") for day in (1, 2)]
    failures = []

    def work(settings):
        try:
            ingest(settings, lake)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(settings,)) for settings in [*days, *days]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(row.user_id for row in lake.table("interactions").collect()) == ["u1", "u2"]


def test_ids_keep_their_type_and_all_their_digits(lake, spark, tmp_path):
    big = 2**62 + 1
    frame = spark.createDataFrame([(big, "x" * 300)], "u long, i string")
    frame.write.parquet(str(tmp_path / "log"))
    source = SourceSettings(path=str(tmp_path / "log"), format="parquet")
    columns = ColumnSettings(user="u", item="i")
    ingest(IngestSettings(lake=lake.root, source=source, columns=columns), lake)
    row = lake.table("interactions").head()
    assert (row.user_id, row.item_id, row.rating, row.timestamp) == (big, "x" * 300, 1.0, None)


@pytest.mark.parametrize("kind", ["json", "parquet", "delta"])
def test_every_format_gives_the_same_rows(lake, spark, tmp_path, kind):
    rows = [("a", "b", 1.5, "2020-01-01T00:00:00Z", "view")]
    spark.createDataFrame(rows, "u string, i string, r double, t string, e string").write.format(kind).save(
        str(tmp_path / "log")
    )
    source = SourceSettings(path=str(tmp_path / "log"), format=kind)
    ingest(IngestSettings(lake=lake.root, source=source, columns=COLUMNS), lake)
    row = lake.table("interactions").selectExpr("*", "unix_timestamp(timestamp) AS seconds").head()
    assert (row.user_id, row.item_id, row.rating, row.seconds, row.event) == ("a", "b", 1.5, 1577836800, "view")


def test_drift_of_the_schema_is_noted_or_refused_by_name(lake, csv, caplog):
    ingest(csv("a,b,1,2020-01-01,x"), lake)
    more = ColumnSettings(**{**COLUMNS.model_dump(), "context": ["place"]})
    ingest(csv("a,b,1,2020-01-01,x,home", header=HEADER + ",place", columns=more), lake)
    assert "new columns in table interactions: ['place']" in caplog.text
    ingest(csv("a,b,2,2020-01-01,x,home,7", header=HEADER + ",place,age", columns=more), lake)
    assert "not kept: ['age']" in caplog.text
    with pytest.raises(IngestError, match="has a column 'place' that this batch lacks"):
        ingest(csv("a,b,3,2020-01-01,x"), lake)
    with pytest.raises(IngestError, match="column 'user_id' is bigint in this batch, but string in table"):
        ingest(csv("7,8,1,2020-01-01,x,home", header=HEADER + ",place", columns=more, id_type="long"), lake)
    with pytest.raises(InputError, match="has no column 'r'"):
        ingest(csv("a,b", header="u,i"), lake)


def test_a_missing_file_and_a_column_of_the_wrong_type_name_what_to_change(lake, spark, tmp_path):
    source = SourceSettings(path=str(tmp_path / "nothing"), format="csv")
    with pytest.raises(InputError, match="there is no such file or folder. Correct source.path"):
        ingest(IngestSettings(lake=lake.root, source=source), lake)
    spark.createDataFrame([(1.5, 2)], "user double, item int").write.parquet(str(tmp_path / "log"))
    source = SourceSettings(path=str(tmp_path / "log"), format="parquet")
    with pytest.raises(IngestError, match="column 'user' is double, but an id is an integer or a string"):
        ingest(IngestSettings(lake=lake.root, source=source), lake)
