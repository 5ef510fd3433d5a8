"""The jobs on a real standalone cluster, with a packed environment, give the tables of a local run."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyspark
import pytest

from sparkrec.config import PipelineSettings
from sparkrec.configfile import validate
from sparkrec.spark.lake import Lake
from sparkrec.stages.pipeline import run

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
HOME = Path(pyspark.__file__).parent


@pytest.fixture
def cluster(tmp_path):
    """Address of a master with two workers of one core each, on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"spark://127.0.0.1:{port}"
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_HOME": str(HOME)}
    base, loopback = "org.apache.spark.deploy", ["--host", "127.0.0.1", "--webui-port", "0"]
    commands = [[f"{base}.master.Master", *loopback, "--port", str(port)]]
    for number in range(2):
        work = str(tmp_path / f"worker{number}")
        commands.append([f"{base}.worker.Worker", *loopback, "-c", "1", "-m", "2g", "-d", work, address])
    processes = []
    try:
        for command in commands:
            log = open(tmp_path / f"{command[0].rsplit('.', 1)[1]}-{len(processes)}.log", "w")  # noqa: SIM115
            processes.append(
                subprocess.Popen([HOME / "bin" / "spark-class", *command], env=environment, stdout=log, stderr=log)
            )
        _wait_for(tmp_path / "Master-0.log", "Registering worker", times=2)
        yield address
    finally:
        for process in processes:
            process.terminate()
            process.wait()


def _wait_for(log: Path, text: str, times: int, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while len(re.findall(text, log.read_text())) < times:
        assert time.monotonic() < deadline, f"no {text!r} in {log.read_text()[-2000:]}"
        time.sleep(0.2)


def rows(lake, name, *columns):
    return sorted(map(tuple, lake.table(name).select(*columns).collect()), key=str)


def test_a_cluster_gives_the_tables_of_a_local_run(spark, tmp_path, cluster, pipeline_settings, config_file):
    archive = tmp_path / "sparkrec.tar.gz"
    subprocess.run([sys.executable, "setup/pack.py", str(archive)], cwd=ROOT, check=True)
    local, remote = (Lake(spark, str(tmp_path / name)) for name in ("local", "remote"))
    config = config_file({**pipeline_settings, "lake": remote.root})
    settings = {
        "spark.archives": f"{archive}#env",
        "spark.pyspark.python": "./env/bin/python",
        "spark.pyspark.driver.python": sys.executable,
        "spark.executor.memory": "1g",
        "spark.sql.shuffle.partitions": "2",
        "spark.driver.host": "127.0.0.1",
        **pipeline_settings["spark"]["conf"],
    }
    options = [part for key, value in settings.items() for part in ("--conf", f"{key}={value}")]
    # The environment's own Python, far from the checkout: executors must live on what was packed.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYSPARK"))}
    submitted = subprocess.run(
        [HOME / "bin" / "spark-submit", "--properties-file", ROOT / "conf/spark/local.conf", "--master", cluster,
         *options, ROOT / "jobs/run.py", "--config", config],
        cwd=tmp_path, env={**environment, "SPARK_LOCAL_IP": "127.0.0.1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert submitted.returncode == 0, submitted.stderr[-4000:]
    executors = sorted(tmp_path.glob("worker*/app-*/*"))
    assert len(executors) >= 2, "the job did not run on both workers"
    run(validate(PipelineSettings, {**pipeline_settings, "lake": local.root}, "test"), local)
    for name, columns in {
        "interactions": ("user_id", "item_id", "rating", "timestamp", "event"),
        "interactions_rejected": ("reason", "row"),
        "interactions_users": ("user", "user_id"),
        "recommendations": ("user_id", "rank", "item_id", "fallback"),
    }.items():
        assert rows(remote, name, *columns) == rows(local, name, *columns)
    keys = ("kind", "split", "segment", "metric", "k", "value")
    for mine, theirs in zip(rows(local, "metrics", *keys), rows(remote, "metrics", *keys), strict=True):
        assert mine[:-1] == theirs[:-1]
        assert mine[-1] == pytest.approx(theirs[-1], abs=1e-4, nan_ok=True)
