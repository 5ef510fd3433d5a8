"""Versions that do not fit together are refused in a sentence; settings of a moment are put back."""

import os
import subprocess
import sys

import pytest

from sparkrec.errors import EnvironmentMismatch
from sparkrec.spark.platform.session import check_versions, delta_coordinate, small_rows
from tests.sockets import LISTENING, PROC, descendants, sockets, to_others


def test_the_coordinate_of_delta_follows_the_version_of_spark():
    assert delta_coordinate("4.2.0") == "io.delta:delta-spark_4.2_2.13:4.4.0"


def test_an_untested_spark_is_refused_with_the_tested_ones():
    with pytest.raises(EnvironmentMismatch, match="Spark 3.5.1 was found; sparkrec is tested with 4.2"):
        delta_coordinate("3.5.1")


def test_a_delta_that_does_not_fit_spark_is_refused_with_what_to_install():
    with pytest.raises(EnvironmentMismatch, match="Delta 4.0.0 was found with Spark 4.2.0, which needs Delta 4.4.0"):
        check_versions("4.2.0", "4.0.0")
    check_versions("4.2.0", "4.4.0")


@pytest.mark.spark
def test_a_session_without_delta_is_told_how_to_get_it(spark):
    from sparkrec.spark.platform.session import require_delta

    class Bare:
        version = spark.version

        class conf:
            @staticmethod
            def get(key, default=None):
                return default

    with pytest.raises(EnvironmentMismatch, match="has no Delta. Submit with --properties-file"):
        require_delta(Bare())


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
