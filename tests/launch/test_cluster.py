"""Where tasks run in executors, Horovod on Spark and TorchDistributor start the processes, on the interface they are
told."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyspark
import pytest

pytest.importorskip("torch")

from sparkrec.errors import ConfigError
from sparkrec.launch import horovod
from tests.sockets import PROC

pytestmark = pytest.mark.torch

TRAIN = """
import functools, json, os, sys
from pathlib import Path

import horovod.spark
from pyspark.ml.torch.distributor import TorchDistributor
from pyspark.sql import SparkSession
from tests.launch import test_launch
from tests.sockets import to_others

spark = SparkSession.builder.getOrCreate()
starters = []

def noting(start, name):
    return lambda *args, **options: starters.append(name) or start(*args, **options)

horovod.spark.run = noting(horovod.spark.run, "horovod.spark.run")
TorchDistributor.run = noting(TorchDistributor.run, "TorchDistributor.run")
looks = functools.partial(test_launch.looks, os.getppid())  # the JVM, which has started this process and all others
for launcher in ("horovod", "torch"):
    own, pids = test_launch.run(looks, test_launch.job(Path(sys.argv[1]), launcher, launcher=launcher))
    of = {pid: [] for pid in (os.getpid(), *pids)}
    for each in own:
        of.get(each[0], []).append(each)
    print("result:", json.dumps([starters.pop(), [(len(has), str(to_others(has))) for has in of.values()]]))
"""


@PROC
@pytest.mark.spark
@pytest.mark.horovod
@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(900)
def test_processes_of_a_cluster_are_started_in_its_tasks_and_talk_by_the_interface_told(tmp_path):
    options = {
        "spark.executor.memory": "1g",
        "spark.executorEnv.GLOO_SOCKET_IFNAME": "lo",
        "spark.ui.enabled": "false",
        "spark.log.level": "OFF",
    }
    home = Path(pyspark.__file__).parent
    environment = {"SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    program = tmp_path / "train.py"
    program.write_text(TRAIN)
    submitted = subprocess.run(
        [home / "bin/spark-submit", "--master", "local-cluster[2,1,1024]",
         *(part for key, value in options.items() for part in ("--conf", f"{key}={value}")), program, tmp_path],
        env={**os.environ, **environment, "PYTHONPATH": os.getcwd()}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert submitted.returncode == 0, submitted.stderr[-4000:]
    results = [json.loads(line[8:]) for line in submitted.stdout.splitlines() if line.startswith("result: ")]
    assert [starter for starter, *_ in results] == ["horovod.spark.run", "TorchDistributor.run"]
    for starter, processes in results:  # the driver and the two that train
        assert [min(count, 1) for count, _ in processes] == [1, 1, 1]
        told = slice(1 if starter == "TorchDistributor.run" else 0, None)  # it has no setting for where logs come in
        assert {others for _, others in processes[told]} == {"[]"}


def test_an_interface_that_the_driver_does_not_have_is_refused(monkeypatch):
    pytest.importorskip("horovod")
    session = SimpleNamespace(sparkContext=SimpleNamespace(master="yarn"), conf={horovod.INTERFACE: "none7,lo"})
    monkeypatch.setattr(horovod, "check_slots", lambda processes: session)
    with pytest.raises(ConfigError, match="IFNAME is none7,lo, and the driver has no interface none7 .*lo"):
        horovod.run(None, None, 2)
