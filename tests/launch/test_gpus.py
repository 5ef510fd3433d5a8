"""How launchers ask for GPUs, and what they say where there are none or where a session starts no processes.

What NCCL connects was not run: that needs a machine with two GPUs.
"""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

import pyspark.ml.torch.distributor as of_spark
import torch.distributed as dist

from sparkrec import storage
from sparkrec.config import TrainingSettings
from sparkrec.errors import ConfigError, TrainError
from sparkrec.launch import horovod, torch_distributor
from tests.launch.sessions import OverConnect

pytestmark = pytest.mark.torch

LOCAL = SimpleNamespace(sparkContext=SimpleNamespace(master="local[2]"))
CLUSTER = SimpleNamespace(sparkContext=SimpleNamespace(master="yarn"))


def job(device="gpu", folder=None):
    settings = SimpleNamespace(training=TrainingSettings(device=device))
    return SimpleNamespace(settings=settings, folder=folder, stores=None)


@pytest.fixture
def session(monkeypatch):
    """Launchers find this session, and slots enough in it."""

    def active(session):
        for launcher in (horovod, torch_distributor):
            monkeypatch.setattr(launcher, "check_slots", lambda processes: session)

    return active


def test_a_local_session_needs_a_gpu_for_each_process(session, monkeypatch):
    session(LOCAL)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="training.processes 2, and torch finds 1 GPUs on this machine"):
        torch_distributor.run(None, job(), 2)


@pytest.mark.parametrize("device", ["gpu", "cpu"])
def test_torch_distributor_is_told_of_gpus(session, monkeypatch, device):
    asked = {}

    class Distributor:
        def __init__(self, **options):
            asked.update(options)

        def run(self, task, *arguments):
            return arguments

    monkeypatch.setattr(of_spark, "TorchDistributor", Distributor)
    session(CLUSTER)
    given = job(device)
    assert torch_distributor.run("train", given, 3) == ("train", given)
    assert asked == {"num_processes": 3, "local_mode": False, "use_gpu": device == "gpu"}


def test_what_torch_distributor_misses_in_a_session_is_said(session, monkeypatch):
    def refuses(**options):
        raise RuntimeError("'spark.task.resource.gpu.amount' was unset, so gpu usage is unavailable.")

    monkeypatch.setattr(of_spark, "TorchDistributor", refuses)
    session(CLUSTER)
    with pytest.raises(ConfigError, match="cannot start training.processes, 2, on device gpu .*gpu.amount' was unset"):
        torch_distributor.run(None, job(), 2)


@pytest.fixture
def a_process(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)


def test_a_process_without_its_gpu_leaves_word_of_it(a_process, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainError, match="training.device is gpu, and torch finds none here"):
        torch_distributor._task(None, job(folder=str(tmp_path)))
    assert "torch finds none here" in storage.read_json(f"{tmp_path}/failed-00001.json")["error"]


@pytest.mark.parametrize(("device", "backend", "place"), [("gpu", "nccl", "cuda:1"), ("cpu", "gloo", "cpu")])
def test_gpus_are_connected_by_nccl_and_exchange_without_the_host(a_process, monkeypatch, device, backend, place):
    connected, current = [], []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **_: connected.append(backend))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch_distributor, "run_here", lambda train_fn, job, collective: collective)
    collective = torch_distributor._task(None, job(device))
    assert (connected, str(collective.exchanges_on)) == ([backend], place)
    assert [str(each) for each in current] == [place] * (device == "gpu")


def test_horovod_says_what_a_session_over_connect_lacks(session):
    pytest.importorskip("horovod")
    session(OverConnect())
    with pytest.raises(ConfigError, match="this one has none, as over Connect .* Set training.launcher to torch"):
        horovod.run(None, None, 2)
