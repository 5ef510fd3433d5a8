"""Processes that the driver starts itself: what they return, and that none is left, whatever happens."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from sparkrec.errors import TrainError
from sparkrec.launch import here
from tests.launch.sessions import OverConnect

pytestmark = pytest.mark.torch

NUMBERED = [{"NUMBER": "0"}, {"NUMBER": "1"}]


@pytest.fixture(autouse=True)
def sent():
    """Processes are sent what they use of this module, instead of importing it and with it torch."""
    here.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    here.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def numbered(folder, then):
    """A call that leaves its process's number and id in a folder, waits until all did, and goes on by its number."""

    def call(ready):
        number = os.environ["NUMBER"]
        (folder / f"{number}.writing").write_text(str(os.getpid()))
        (folder / f"{number}.writing").rename(folder / number)
        until(lambda: all((folder / each["NUMBER"]).exists() for each in NUMBERED))
        ready()
        return then[int(number)]()

    return call


def until(happened, seconds=60):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def forever():
    while True:
        time.sleep(60)


def raises():
    raise ValueError("something odd")


def alive(pid):
    """Whether a process runs: one that nobody has asked about since it ended does not."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_results_come_in_the_order_of_the_environments():
    assert here.run(lambda ready: int(os.environ["NUMBER"]), NUMBERED) == [0, 1]


def test_processes_share_the_cores_of_the_machine(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert here.run(lambda ready: os.environ["OMP_NUM_THREADS"], NUMBERED) == ["3", "3"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert here.run(lambda ready: os.environ["OMP_NUM_THREADS"], NUMBERED) == ["1", "1"]


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (raises, r"(?s)process 1 of 2 failed:\n.*ValueError: something odd"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "process 1 of 2 was ended by SIGKILL, without a word"),
        (lambda: os._exit(3), "process 1 of 2 ended with exit code 3, without a word"),
        (lambda: lambda: None, "(?s)process 1 of 2 failed:\n.*pickle"),
    ],
)
def test_a_process_that_fails_is_named_and_ends_the_others(tmp_path, last, message):
    with pytest.raises(TrainError, match=message):
        here.run(numbered(tmp_path, [forever, last]), NUMBERED)
    assert not alive((tmp_path / "0").read_text())


def test_what_cannot_be_loaded_is_told(monkeypatch):
    monkeypatch.setattr(here.cloudpickle, "dumps", lambda call: b"csparkrec.no_such_module\nrun\n.")
    with pytest.raises(TrainError, match=r"(?s)process \d of 2 failed:\n.*No module named 'sparkrec.no_such_module'"):
        here.run(None, NUMBERED)


def test_processes_that_do_not_find_one_another_end(monkeypatch):
    monkeypatch.setattr(here, "START_SECONDS", 1.0)
    with pytest.raises(TrainError, match="process 0, 1 of 2 did not find the others within 1 s"):
        here.run(lambda ready: forever(), NUMBERED)


DRIVER = """
import subprocess, sys
from pathlib import Path
from sparkrec.launch import here
from tests.launch.test_here import NUMBERED, forever, numbered

folder = Path(sys.argv[1])

def with_child():
    process = subprocess.Popen(["sleep", "600"])
    (folder / f"child {process.pid}").touch()
    forever()

here.run(numbered(folder, [with_child, forever]), NUMBERED)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_its_driver(tmp_path, number):
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path)], env=environment, stderr=subprocess.PIPE
    ) as driver:
        until(lambda: list(tmp_path.glob("child *")))
        driver.send_signal(number)
        assert driver.wait(60) == -number
    pids = [(tmp_path / "0").read_text(), (tmp_path / "1").read_text(), next(tmp_path.glob("child *")).name.split()[-1]]
    until(lambda: not any(map(alive, pids)))


@pytest.mark.parametrize(
    ("master", "interfaces", "expected"),
    [
        ("local", ["lo", "eth0"], "lo"),
        ("local[2]", ["eth0", "lo"], "lo"),
        ("local[*, 4]", ["lo0", "en0"], "lo0"),
        ("local[2]", ["eth0"], None),
        ("local-cluster[2,1,1024]", ["lo", "eth0"], None),
        ("spark://localhost:7077", ["lo", "eth0"], None),
    ],
)
def test_loopback_is_for_sessions_whose_tasks_are_all_here(monkeypatch, master, interfaces, expected):
    monkeypatch.setattr(here.socket, "if_nameindex", lambda: list(enumerate(interfaces, 1)))
    assert here.loopback(SimpleNamespace(sparkContext=SimpleNamespace(master=master))) == expected


def test_a_session_without_a_context_does_not_tell_where_its_tasks_run():
    assert here.loopback(OverConnect()) is None
