"""Launchers: two processes do what one does, and whatever befalls one of them ends the run with its word."""

import os
import signal
import sys
import time
from functools import partial

import pytest
from pyspark import cloudpickle

pytest.importorskip("torch")

import torch

from sparkrec import storage
from sparkrec.errors import ConfigError, TrainError
from sparkrec.launch import launch
from sparkrec.models.mf import MfSettings
from sparkrec.training.loop import Job, train
from tests.sockets import CONNECTED, LISTENING, PROC, descendants, sockets, to_others
from tests.training.examples import plain, planted, write_shards

pytestmark = [
    pytest.mark.spark,
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.timeout(300),
]

USERS, ITEMS, _ = planted()
LAUNCHERS = [pytest.param("horovod", marks=pytest.mark.horovod), "torch"]


def job(folder, name="run", **training):
    shards = write_shards(folder / "shards", USERS, ITEMS, 80, of_group=2)
    given = {"threads": 1, "epochs": 2, "batch": 64, "learning_rate": 0.05, "init_scale": 0.1, "processes": 2}
    settings = MfSettings(dim=6, training=plain(**{**given, **training}))
    return Job(settings, shards, None, str(folder / name), 0)


def run(function, given):
    return launch(function, given, given.settings.training)


@pytest.fixture(autouse=True)
def importable(spark, monkeypatch):
    """Processes are sent what they use of this module, and find what that uses in this checkout."""
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_train_as_one_does(launcher, spark, tmp_path):
    one = run(train, job(tmp_path, "one", processes=1))
    two = run(train, job(tmp_path, "two", launcher=launcher))
    assert [e["loss"] for e in two["history"]] == pytest.approx([e["loss"] for e in one["history"]], rel=1e-4)


def looks(driver, job, collective):
    """Sockets of the driver and of all that it started, in the first step, and the processes that take it."""
    beat, own = collective.beat, []

    def look():
        beat()
        own.append(sockets(descendants(driver), LISTENING, CONNECTED) if not own else [])

    collective.beat = look
    train(job, collective)
    pids = collective.gather(torch.tensor([os.getpid()]))
    return own[0], [int(pid) for pid in pids]


@PROC
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_training_of_a_local_session_is_on_loopback_alone(launcher, spark, tmp_path):
    """What was listened on while processes met one another is the address of the connection that came of it."""
    own, pids = run(partial(looks, os.getpid()), job(tmp_path, launcher=launcher))
    assert {pid for pid, _, _ in own} >= {os.getpid(), *pids}
    assert to_others(own) == []


def _raises(job, collective):
    if collective.process_rank == 1:
        raise ValueError("something odd")
    return train(job, collective)


def _killed(job, collective):
    if collective.process_rank == 1:
        storage.write(f"{job.folder}/reached", b"")
        os.kill(os.getpid(), signal.SIGKILL)
    return train(job, collective)


def _stopped(job, collective):
    if collective.process_rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    return train(job, collective)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_process_that_raises_is_named_and_ends_the_others(launcher, spark, tmp_path):
    given = job(tmp_path, launcher=launcher, epochs=1000)
    with pytest.raises(TrainError, match=r"(?s)process 1 of 2 failed: something odd\nThe end of its log:\n.*Traceback"):
        run(_raises, given)
    assert time.time() - storage.read_json(f"{given.folder}/failed-00001.json")["time"] < 60


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_process_that_is_killed_ends_the_run(launcher, spark, tmp_path):
    given = job(tmp_path, launcher=launcher, epochs=1000, stall_seconds=20)
    with pytest.raises(TrainError, match="process 1 of 2 was ended by SIGKILL, without a word"):
        run(_killed, given)
    assert storage.exists(f"{given.folder}/reached")


@pytest.mark.horovod
def test_a_process_that_stalls_ends_the_run(spark, tmp_path):
    with pytest.raises(TrainError, match=r"process \d made no step for 10 s: it, or one it waits for, stalls"):
        run(_stopped, job(tmp_path, launcher="horovod", epochs=1000, stall_seconds=10))


def test_what_cannot_be_started_is_refused_at_once(spark, tmp_path):
    with pytest.raises(ConfigError, match=r"processes is 9, and the session at local\[2\] runs 2 tasks at once"):
        run(train, job(tmp_path, processes=9, launcher="torch"))
