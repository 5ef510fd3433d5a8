"""A real standalone cluster: its jobs give the tables of a local run, and a fit outlives an executor."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyspark
import pytest

from sparkrec.config import PipelineSettings
from sparkrec.configfile import validate
from sparkrec.spark.platform import few
from sparkrec.spark.platform.lake import Lake
from sparkrec.stages.pipeline import run

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
HOME = Path(pyspark.__file__).parent


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Address of a master with two workers of one core each, on loopback, and the folder they work in."""
    folder = tmp_path_factory.mktemp("cluster")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"spark://127.0.0.1:{port}"
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_HOME": str(HOME)}
    base, loopback = "org.apache.spark.deploy", ["--host", "127.0.0.1", "--webui-port", "0"]
    commands = [[f"{base}.master.Master", *loopback, "--port", str(port)]]
    for number in range(2):
        work = str(folder / f"worker{number}")
        commands.append([f"{base}.worker.Worker", *loopback, "-c", "1", "-m", "2g", "-d", work, address])
    processes = []
    try:
        for command in commands:
            log = open(folder / f"{command[0].rsplit('.', 1)[1]}-{len(processes)}.log", "w")  # noqa: SIM115
            processes.append(
                subprocess.Popen([HOME / "bin" / "spark-class", *command], env=environment, stdout=log, stderr=log)
            )
        _wait_for(folder / "Master-0.log", "Registering worker", times=2)
        yield address, folder
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
    address, folder = cluster
    archive = tmp_path / "sparkrec.tar.gz"
    subprocess.run([sys.executable, "setup/pack.py", str(archive)], cwd=ROOT, check=True)
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "-xzf", archive, "-C", unpacked], check=True)
    job = shutil.copy(ROOT / "jobs/run.py", tmp_path)
    local, remote = (Lake(spark, str(tmp_path / name)) for name in ("local", "remote"))
    config = config_file({**pipeline_settings, "lake": remote.root})
    settings = {
        "spark.archives": f"{archive}#env",
        "spark.pyspark.python": "./env/bin/python",
        "spark.pyspark.driver.python": str(unpacked / "bin/python"),
        "spark.executor.memory": "1g",
        "spark.sql.shuffle.partitions": "2",
        "spark.driver.host": "127.0.0.1",
        **pipeline_settings["spark"]["conf"],
    }
    options = [part for key, value in settings.items() for part in ("--conf", f"{key}={value}")]
    # Nothing of this checkout or its environment, which comes first on many a path: what was packed must do.
    environment = {"PATH": "/usr/bin:/bin", "SPARK_HOME": str(HOME), "SPARK_LOCAL_IP": "127.0.0.1"}
    environment |= {key: os.environ[key] for key in ("HOME", "JAVA_HOME", "TMPDIR") if key in os.environ}
    submitted = subprocess.run(
        [HOME / "bin" / "spark-submit", "--properties-file", ROOT / "conf/spark/local.conf", "--master", address,
         *options, job, "--config", config],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert submitted.returncode == 0, submitted.stderr[-4000:]
    executors = sorted(folder.glob("worker*/app-*/*"))
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


FIT = """
import subprocess, sys
from pyspark.sql import SparkSession
from sparkrec.spark.algorithms.als.settings import AlsSettings
from sparkrec.spark.algorithms.als import solve
from sparkrec.spark.algorithms.als.fit import factorize
from sparkrec.spark.runner import SparkRows

ratings, scratch, out, kill = sys.argv[1:]
spark = SparkSession.builder.getOrCreate()
half_step, calls = solve.SideSolver.half_step, []

def kills(*args):
    calls.append(args)
    if kill == "yes" and len(calls) == 8:  # in the fourth iteration
        subprocess.run(["pkill", "-KILL", "-o", "-f", f"app-id {spark.sparkContext.applicationId}"], check=True)
    return half_step(*args)

solve.SideSolver.half_step = kills
settings = AlsSettings(
    rank=4, iterations=5, unobserved_weight=0.1, regularization=0.01, regularization_exponent=1.0,
    propensity_exponent=0.0, biases=False, snapshot_every=2, user_blocks=3, item_blocks=3,
)
users, items, history = factorize(SparkRows(spark.read.parquet(ratings)), settings, seed=1, scratch=scratch)
users.write(out + "/users")
items.write(out + "/items")
print(len(calls), [entry["iteration"] for entry in history])
"""


def test_the_driver_of_a_standalone_cluster_runs_where_it_is_submitted(tmp_path, cluster):
    """As docs/emr-dataproc-kubernetes.md has it."""
    (tmp_path / "job.py").touch()
    submitted = subprocess.run(
        [HOME / "bin" / "spark-submit", "--master", cluster[0], "--deploy-mode", "cluster", tmp_path / "job.py"],
        env={**os.environ, "SPARK_HOME": str(HOME), "SPARK_LOCAL_IP": "127.0.0.1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert submitted.returncode != 0
    assert "Cluster deploy mode is currently not supported for python applications on standalone" in submitted.stderr


def test_a_fit_outlives_an_executor(spark, tmp_path, cluster):
    """SIGKILL to its JVM: the blocks it held are gone, and the fit ends with the same factors."""
    rng = np.random.default_rng(0)
    users, items = np.nonzero(rng.random((40, 25)) < 0.4)
    rows = [(int(u), int(i), 1.0, 1.0) for u, i in zip(users, items, strict=True)]
    frame = spark.createDataFrame(rows, "user long, item long, value float, confidence float")
    frame.repartition(4).write.parquet(str(tmp_path / "ratings"))
    program = tmp_path / "fit.py"
    program.write_text(FIT)
    here = {"SPARK_LOCAL_IP": "127.0.0.1", "PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable}
    environment, said = {**os.environ, **here}, {}
    for kill in ("no", "yes"):
        options = {
            "spark.executorEnv.PYTHONPATH": str(ROOT),
            "spark.executor.memory": "1g",
            "spark.sql.shuffle.partitions": "2",
            "spark.driver.host": "127.0.0.1",
            few.SETTING: "never",  # so few rows would stay on the driver, and no executor be missed
        }
        submitted = subprocess.run(
            [HOME / "bin" / "spark-submit", "--master", cluster[0],
             *(part for key, value in options.items() for part in ("--conf", f"{key}={value}")),
             program, tmp_path / "ratings", tmp_path / f"scratch-{kill}", tmp_path / kill, kill],
            env=environment, capture_output=True, text=True, check=False, timeout=400,
        )  # fmt: skip
        assert submitted.returncode == 0, submitted.stderr[-4000:]
        said[kill] = submitted.stdout.strip().splitlines()[-1]
    assert said["no"] == "10 [1, 2, 3, 4, 5]"
    assert said["yes"] != said["no"], "the executor was not missed"
    assert said["yes"].endswith("[1, 2, 3, 4, 5]")
    for side in ("users", "items"):
        whole, broken = (spark.read.parquet(str(tmp_path / kill / side)).orderBy("id").collect() for kill in said)
        assert [row.id for row in whole] == [row.id for row in broken]
        np.testing.assert_allclose([row.value for row in whole], [row.value for row in broken], atol=1e-4)
