"""Versions that do not fit together are refused in a sentence; settings of a moment are put back."""

import ipaddress
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparkrec.errors import EnvironmentMismatch
from sparkrec.spark.session import check_versions, delta_coordinate, small_rows


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
    from sparkrec.spark.session import require_delta

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


def listening(pids):
    """(process, address, port) of all TCP sockets on which any of these processes listens, from Linux's /proc."""
    inodes = {}
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(descriptor)
            except OSError:
                continue  # closed meanwhile
            if target.startswith("socket:["):
                inodes[target[8:-1]] = pid
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and rest[5] in inodes:
                host, port = local.split(":")
                words = [bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8)]
                found.append((inodes[rest[5]], ipaddress.ip_address(b"".join(words)), int(port, 16)))
    return found


def is_loopback(address):
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def descendants(pid):
    """The process and all that it started, and they."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return [pid, *(each for names in children for name in names.read_text().split() for each in descendants(int(name)))]


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="sockets are looked up in Linux's /proc")
def test_a_local_session_listens_on_loopback_alone(tmp_path):
    script = (
        "import sys\n"
        "from sparkrec.config import SparkSettings\n"
        "from sparkrec.spark.session import open_session\n"
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
        sockets = listening(descendants(process.pid))
        process.stdin.close()
    assert len(sockets) >= 3  # of Py4J, blocks, the web page
    assert [each for each in sockets if not is_loopback(each[1])] == []
