"""Fixtures that all tests share: one Spark session, a fresh lake for each test."""

import os
from pathlib import Path

import pytest
import yaml

from sparkrec.config import SparkSettings
from sparkrec.synthetic import LogShape, write_log

# Thousands of short jobs, of which no two are alike: code that Spark generates for a job, compiles and runs once costs
# more than it gives, as do the JVM's second compiler, its parallel collector, and plans that are made anew after each
# shuffle. (What spark-submit starts on a cluster has them all.) With one compiler the JVM would have room for 48 MB of
# compiled code, which Spark's fills in minutes: from then on it sweeps. Each task that sorts or groups takes a page of
# memory, which would be a 32nd of the heap; what has run is kept to be shown.
QUICK_JVM = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
    "spark.buffer.pageSize": "1m",
    "spark.sql.ui.retainedExecutions": "1",
    "spark.ui.retainedJobs": "10",
    "spark.ui.retainedStages": "10",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:ReservedCodeCacheSize=512m",
}


@pytest.fixture(scope="session")
def spark():
    from sparkrec.spark.platform.session import open_session

    session = open_session(SparkSettings(master="local[2]", memory="3g", shuffle_partitions=2, conf=QUICK_JVM))
    yield session
    session.stop()


@pytest.fixture
def lake(spark, tmp_path):
    from sparkrec.spark.platform.lake import Lake

    return Lake(spark, str(tmp_path / "lake"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the public data sets, for tests marked `data`."""
    root = os.environ.get("SPARKREC_DATA")
    if not root:
        pytest.skip("SPARKREC_DATA is not set: it names the folder of the public data sets")
    return Path(root)


@pytest.fixture(scope="session")
def log_files(tmp_path_factory):
    """events.csv and items.csv of a small log."""
    shape = LogShape(users=150, items=64, events_per_user=25)
    return write_log(tmp_path_factory.mktemp("log"), shape)


@pytest.fixture(scope="session")
def pipeline_settings(log_files):
    """Plain settings of a pipeline over that log; `lake` is up to the test."""
    als = {"kind": "als", "rank": 8, "iterations": 6, "unobserved_weight": 0.1, "user_blocks": 2, "item_blocks": 2}
    return {
        "spark": {"master": "local[2]", "memory": "2g", "shuffle_partitions": 2, "conf": QUICK_JVM},
        "ingest": [
            {
                "source": {"path": str(log_files[0]), "format": "csv"},
                "columns": {"user": "user", "item": "item", "rating": "weight", "timestamp": "time", "event": "event"},
                "timestamp_format": "seconds",
                "batch": "first",
            }
        ],
        "prepare": {
            "dataset": "small",
            "dedup": "sum",
            "event_weights": {"view": 1.0, "like": 3.0, "buy": 5.0},
            "feedback": {"kind": "implicit", "confidence": "log"},
            "min_user_interactions": 3,
        },
        "train": [{"model": {**als, "snapshot_every": 2}}, {"model": {"kind": "popularity"}}],
        "evaluate": [{"cutoffs": [5, 10]}],
        "recommend": {"k": 5},
    }


@pytest.fixture
def config_file(tmp_path):
    """Write settings to a YAML file."""

    def write(settings, name="config") -> str:
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(settings))
        return str(path)

    return write


@pytest.fixture(scope="session")
def prepared_lake(spark, tmp_path_factory, pipeline_settings):
    """A lake with the dataset `small`, for tests that add to it and change nothing."""
    from sparkrec.config import IngestSettings, PrepareSettings
    from sparkrec.configfile import validate
    from sparkrec.spark.platform.lake import Lake
    from sparkrec.stages.ingest import ingest
    from sparkrec.stages.prepare import prepare

    lake = Lake(spark, str(tmp_path_factory.mktemp("prepared") / "lake"))
    ingest(validate(IngestSettings, {"lake": lake.root, **pipeline_settings["ingest"][0]}, "test"), lake)
    prepare(validate(PrepareSettings, {"lake": lake.root, **pipeline_settings["prepare"]}, "test"), lake)
    return lake
