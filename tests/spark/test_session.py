"""What a session has and lacks is told in a sentence; settings of a moment are put back."""

import os
import subprocess
import sys

import pytest
from pyspark.sql import SparkSession

from sparkrec.config import SparkSettings
from sparkrec.errors import EnvironmentMismatch
from sparkrec.spark.platform import delta
from sparkrec.spark.platform.conf import preferred
from sparkrec.spark.platform.session import open_session, small_rows
from tests.sockets import LISTENING, PROC, descendants, sockets, to_others


@pytest.mark.parametrize(
    ("spark_version", "delta_version", "jar"),
    [
        ("4.2.0", "4.4.0", "delta-spark_4.2_2.13:4.4.0"),
        ("4.1.2", "4.4.0", "delta-spark_4.1_2.13:4.4.0"),
        ("4.0.1", "4.1.0", "delta-spark_4.0_2.13:4.1.0"),
        ("4.0.1", "4.0.1", "delta-spark_2.13:4.0.1"),
        ("4.3.0", "4.4.0", "delta-spark_4.2_2.13:4.4.0"),
        ("4.3.0.dev1", "4.5.0rc1", "delta-spark_4.2_2.13:4.5.0rc1"),
        ("3.5.6", "3.3.3", "delta-spark_2.12:3.3.3"),
    ],
)
def test_the_jars_of_delta_follow_the_versions_of_both(spark_version, delta_version, jar):
    assert delta.coordinate(spark_version, delta_version) == f"io.delta:{jar}"


class Answering:
    """A session that reads Delta as another one would."""

    version = "4.2.0"

    def __init__(self, answer=None):
        self.answer, self.asked, self.read = answer, 0, self

    def format(self, name):
        assert name == "delta"
        return self

    def load(self, path):
        self.asked += 1
        if self.answer:
            raise RuntimeError(self.answer)
        return self

    schema = None


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("[DATA_SOURCE_NOT_FOUND] Failed to find the data source: delta.", "has no Delta. Submit with"),
        ("[DELTA_CONFIGURE_SPARK_SESSION_WITH_EXTENSION_AND_CATALOG] This ...", "has no Delta. Submit with"),
        (
            "java.lang.NoSuchMethodError: 'org.apache...'",
            r"another Spark than 4.2.0 \(NoSuchMethodError\). Submit with",
        ),
    ],
)
def test_a_session_without_a_delta_that_works_is_told_how_to_get_one(monkeypatch, answer, told):
    monkeypatch.delenv("DATABRICKS_RUNTIME_VERSION", raising=False)
    with pytest.raises(EnvironmentMismatch, match=told):
        delta.require_delta(Answering(answer))
    monkeypatch.setattr(delta, "installed", lambda: None)
    with pytest.raises(EnvironmentMismatch, match=r"pip install 'sparkrec\[spark\]'"):
        delta.require_delta(Answering(answer))
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    delta.require_delta(Answering(answer))  # it has its own


def test_a_session_is_asked_for_delta_once():
    fine, missing = Answering(), Answering("[DELTA_TABLE_NOT_FOUND] there is no such folder")
    for session in (fine, missing):
        delta.require_delta(session)
        delta.require_delta(session)
        assert session.asked == 1


@pytest.mark.spark
def test_on_databricks_no_session_is_made_with_settings_of_its_own(spark, monkeypatch):
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: None)
    own = open_session(SparkSettings(conf={"spark.sparkrec.of_tests": "1"}))
    assert own.sparkContext is spark.sparkContext
    assert own.conf.get("spark.sparkrec.of_tests", None) is None


@pytest.mark.spark
def test_the_session_of_the_tests_has_delta(spark):
    delta.require_delta(spark)


@pytest.mark.spark
def test_a_setting_that_a_session_refuses_stays_as_it_is(spark):
    static = {"spark.sql.warehouse.dir": "elsewhere", "spark.sql.session.timeZone": "Europe/Prague"}
    before = {name: spark.conf.get(name) for name in static}
    with preferred(spark, static):
        assert spark.conf.get("spark.sql.warehouse.dir") == before["spark.sql.warehouse.dir"]
        assert spark.conf.get("spark.sql.session.timeZone") == "Europe/Prague"
    assert {name: spark.conf.get(name) for name in static} == before


@pytest.mark.spark
def test_batches_of_small_rows_are_a_setting_of_the_moment(spark):
    names = [f"spark.sql.execution.arrow.{each}" for each in ("maxBytesPerBatch", "maxRecordsPerBatch")]
    before = [spark.conf.get(name) for name in names]
    with small_rows(spark):
        assert [spark.conf.get(name) for name in names] != before
    assert [spark.conf.get(name) for name in names] == before
    with pytest.raises(KeyError), small_rows(spark):
        raise KeyError
    assert [spark.conf.get(name) for name in names] == before


@pytest.mark.spark
@pytest.mark.slow
@PROC
def test_a_local_session_listens_on_loopback_alone(tmp_path):
    script = (
        "import sys\n"
        "from sparkrec.config import SparkSettings\n"
        "from sparkrec.spark.platform.session import open_session\n"
        "settings = SparkSettings(master='local[2]', memory='1g', conf={'spark.ui.enabled': 'true'})\n"
        "spark = open_session(settings)\n"
        "spark.range(4).mapInArrow(lambda batches: batches, 'id long').count()\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "SPARK_LOCAL_IP"}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert any(line.strip() == "ready" for line in process.stdout)
        own = sockets(descendants(process.pid), LISTENING)
        process.stdin.close()
    assert len(own) >= 3  # of Py4J, blocks, the web page
    assert to_others(own) == []
