"""What has no manifest does not exist; what determines a result names it."""

import pyarrow.fs as pafs
import pytest

from sparkrec import storage
from sparkrec.config import PrepareSettings, SparkSettings
from sparkrec.errors import InputError
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.platform.lake import Lake

pytestmark = pytest.mark.spark


def settings(lake, **more):
    return PrepareSettings(**{"lake": lake.root, "dataset": "plays", **more})


def test_a_run_exists_once_its_manifest_does(lake):
    run = lake.open_run("prepare", "plays", settings(lake), {"version": 3})
    assert not run.finished
    with pytest.raises(InputError, match="there is no finished prepare run 'plays'.*Run `sparkrec prepare` first"):
        lake.finished_run("prepare", "plays")
    run.publish(rows=7)
    assert lake.finished_run("prepare", "plays").manifest["rows"] == 7
    assert lake.open_run("prepare", "plays", settings(lake), {"version": 3}).finished


def test_other_settings_or_inputs_are_another_run_and_another_place_is_not(lake):
    def run_id(inputs, **more):
        return lake.open_run("prepare", "plays", settings(lake, **more), inputs).id

    same = run_id({"version": 3})
    assert run_id({"version": 4}) != same
    assert run_id({"version": 3}, dedup="sum") != same
    assert run_id({"version": 3}, spark=SparkSettings(memory="8g")) == same


def test_a_name_means_its_latest_run_and_a_pin_means_that_run(lake):
    first = lake.open_run("prepare", "plays", settings(lake), {"version": 1}).publish()
    second = lake.open_run("prepare", "plays", settings(lake), {"version": 2}).publish()
    assert lake.finished_run("prepare", "plays").id == second.id
    assert lake.finished_run("prepare", first.reference).id == first.id
    with pytest.raises(InputError, match="no finished prepare run 'pays'.*It has plays"):
        lake.finished_run("prepare", "pays")


def test_an_append_happens_once_for_each_transaction(lake, spark):
    for _ in range(2):
        lake.append("numbers", spark.range(3), "once")
    lake.append("numbers", spark.range(3), "twice")
    assert lake.table("numbers").count() == 6


def test_what_a_table_is_follows_from_its_log_and_is_what_delta_says(lake, spark):
    def said(what):
        return spark.sql(f"DESCRIBE {what} delta.`{lake.path('numbers')}`").head()

    for name in ("once", "twice"):
        lake.append("numbers", spark.range(3), name)
        assert lake.table_version("numbers") == said("HISTORY")["version"]
        assert lake.table_id("numbers") == said("DETAIL")["id"]
    storage.write(lake.path("numbers", "_delta_log", f"{7:020}.json.half"), b"{")  # of a writer that was killed
    assert lake.table_version("numbers") == 1
    storage.delete(lake.path("numbers", "_delta_log", f"{1:020}.crc"))  # written beside the log, and not by all
    assert lake.table_id("numbers") == said("DETAIL")["id"]


def test_a_version_that_is_not_there_is_named_with_the_latest(lake, spark):
    lake.append("numbers", spark.range(3), "once")
    with pytest.raises(InputError, match="table 'numbers' has no version 9 to read: the latest is 0"):
        lake.table("numbers", 9)
    with pytest.raises(InputError, match="there is no table 'letters'"):
        lake.table("letters")


def test_the_id_tables_of_another_dataset_are_refused(lake, spark):
    lake.append("interactions_users", spark.range(3), "users")
    lake.append("interactions_items", spark.range(3), "items")
    ids = {
        side: {"table": f"interactions_{side}", "id": lake.table_id(f"interactions_{side}"), "version": 0}
        for side in ("users", "items")
    }
    lake.open_run("prepare", "plays", settings(lake), {}).publish(ids=ids)
    storage.delete(lake.path("interactions_items"))
    lake.append("interactions_items", spark.range(3), "other items")
    with pytest.raises(InputError, match="the id table 'interactions_items' .* is not the one that dataset plays@"):
        Dataset.open(lake, "plays")


class FullDisk(pafs.LocalFileSystem):
    """No more than half of a file is written."""

    def open_output_stream(self, path, *args, **more):
        with super().open_output_stream(path) as stream:
            stream.write(b'{"ro')
        raise OSError(28, "No space left on device")


def test_a_manifest_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = f"{tmp_path}/run/manifest.json"
    storage.write_json(path, {"rows": 1})
    with pytest.raises(TypeError):
        storage.write_json(path, {("no", "key"): 1})
    assert storage.read_json(path) == {"rows": 1}
    monkeypatch.setattr(storage, "resolve", lambda path: (FullDisk(), path))
    for name in (path, f"{tmp_path}/run/other.json"):
        with pytest.raises(OSError, match="No space left"):
            storage.write_json(name, {"rows": 2})
    monkeypatch.undo()
    assert storage.read_json(path) == {"rows": 1}
    assert [each.name for each in (tmp_path / "run").iterdir()] == ["manifest.json"]


def test_a_lake_of_a_relative_path_is_below_the_folder_of_the_process(spark, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lake = Lake(spark, "lake/")
    assert lake.root == str(tmp_path / "lake")
    lake.append("numbers", spark.range(3), "first")
    assert lake.table_version("numbers") == 0
    assert Lake(spark, "s3a://bucket/lake/").root == "s3a://bucket/lake"
