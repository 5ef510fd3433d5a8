"""A local session starts with what the last one has found, and as without where that is gone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparkrec.spark.platform import quick_start
from sparkrec.spark.platform.session import delta_coordinate

COORDINATE = delta_coordinate()


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache" / "sparkrec").mkdir(parents=True)
    return tmp_path / "cache" / "sparkrec"


def record(cache, jars):
    (cache / f"{COORDINATE.replace(':', '_')}.json").write_text(json.dumps([str(jar) for jar in jars]))


def test_jars_are_known_until_one_of_them_is_gone(cache, tmp_path):
    jars = [tmp_path / "delta.jar", tmp_path / "storage.jar"]
    for jar in jars:
        jar.touch()
    assert quick_start.known_jars(COORDINATE) is None
    record(cache, jars)
    assert quick_start.known_jars(COORDINATE) == [str(jar) for jar in jars]
    jars[1].unlink()
    assert quick_start.known_jars(COORDINATE) is None


def test_a_torn_record_is_none(cache):
    (cache / f"{COORDINATE.replace(':', '_')}.json").write_text('["/a.ja')
    assert quick_start.known_jars(COORDINATE) is None


def test_an_archive_is_of_its_jars_and_of_their_order(cache):
    paths = [["a.jar", "b.jar"], ["b.jar", "a.jar"], ["a.jar"]]
    assert len({quick_start.class_archive(jars) for jars in paths}) == 3


def test_an_archive_is_read_once_it_is_there(cache, monkeypatch):
    monkeypatch.delenv("SPARK_CONF_DIR", raising=False)
    assert "SharedArchiveFile" not in quick_start.java_options(["a.jar"])
    quick_start.class_archive(["a.jar"]).touch()
    assert f"-XX:SharedArchiveFile={quick_start.class_archive(['a.jar'])}" in quick_start.java_options(["a.jar"])


def test_a_log_that_is_configured_stays_as_it_is(cache, monkeypatch):
    monkeypatch.setenv("SPARK_CONF_DIR", "/etc/spark")
    assert "log4j2" not in quick_start.java_options(None)


@pytest.mark.spark
@pytest.mark.slow
def test_the_second_session_asks_ivy_nothing_and_has_delta(cache, tmp_path):
    script = (
        "import sys\n"
        "from sparkrec.config import SparkSettings\n"
        "from sparkrec.spark.platform.session import open_session\n"
        "spark = open_session(SparkSettings(master='local[1]', memory='1g', shuffle_partitions=1,\n"
        "    conf={'spark.driver.extraJavaOptions': '-Dgiven=yes -XX:TieredStopAtLevel=1'}))\n"
        "assert spark._jvm.System.getProperty('given') == 'yes'\n"
        "spark.range(3).write.format('delta').save(sys.argv[1])\n"
        "assert spark.read.format('delta').load(sys.argv[1]).count() == 3\n"
    )

    def errors(name):
        run = [sys.executable, "-c", script, str(tmp_path / name)]
        return subprocess.run(run, check=True, capture_output=True, text=True, env=dict(os.environ)).stderr

    assert "resolution report" in errors("first")
    assert all(Path(jar).exists() for jar in quick_start.known_jars(COORDINATE))
    own = [line for line in errors("second").splitlines() if "incubator" not in line]
    assert own == []
