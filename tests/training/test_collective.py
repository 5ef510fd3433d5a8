"""What processes say to each other, and what is counted of it."""

import itertools

import pytest

torch = pytest.importorskip("torch")

from sparkrec.training import collective
from sparkrec.training.collective import Alone
from tests.training.examples import in_threads

pytestmark = pytest.mark.torch


def test_nobody_leaves_a_barrier_before_all_have_come():
    came = []

    def work(process):
        for _ in range(50):
            came.append(process.process_rank)
            process.barrier()
            there = came.copy()
            process.barrier()
            assert there.count(0) == there.count(1)

    in_threads(work, 2)
    assert len(came) == 100


def test_one_process_that_says_so_is_enough():
    assert in_threads(lambda process: process.any(process.process_rank == 1), 2) == [True, True]
    assert in_threads(lambda process: process.any(False), 2) == [False, False]


def test_every_process_gets_all_that_was_gathered_in_order():
    def work(process):
        return [each.tolist() for each in process.gather(torch.full((2,), process.process_rank))]

    assert in_threads(work, 2) == [[[0, 0], [1, 1]]] * 2


def test_seconds_and_bytes_of_what_was_sent_are_added_up(monkeypatch):
    clock = itertools.count(100, 3)  # each look three seconds later
    monkeypatch.setattr(collective.time, "perf_counter", lambda: float(next(clock)))
    process = Alone()
    process.size = 2
    process.sum(torch.zeros(5))
    process.broadcast(torch.zeros(2, 3, dtype=torch.float64))
    assert (process.seconds, process.sent) == (6.0, 5 * 4 + 6 * 8)


def test_a_process_alone_sends_nothing():
    process = Alone()
    values = torch.ones(3)
    assert process.sum(values) is values
    process.gather(values), process.broadcast(values), process.barrier()
    assert (process.seconds, process.sent) == (0.0, 0)
