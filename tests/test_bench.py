"""How contestants are measured: all alike."""

import os

import pytest

pytest.importorskip("psutil")

from bench import measure
from bench.measure import Given, Treatment, best


def contestant(cost, given):
    """Faster with more threads."""
    return {"seconds": cost / given.threads, "given": given, "omp": os.environ["OMP_NUM_THREADS"]}


def test_every_way_is_tried_with_every_number_of_threads_and_the_best_is_measured():
    row = best(Treatment(warm_up=1, runs=3, threads=(1, 2)), [(contestant, 4.0), (contestant, 3.0)])
    assert (row["seconds"], row["threads"], row["warm_up"], row["runs"]) == (1.5, 2, 1, 3)
    assert row["given"] == Given(warm_up=1, runs=3, threads=2)
    assert row["omp"] == "2"
    assert row["peak_gb"] >= 0


def test_more_a_second_is_better():
    def slow_first(row):
        return measure._cost({"examples_per_second": row}, "examples_per_second")

    assert sorted([10.0, 30.0, 20.0], key=slow_first) == [30.0, 20.0, 10.0]


def test_what_warms_up_does_not_count_and_the_median_of_the_rest_does(monkeypatch):
    clock, runs = [0.0], iter([100.0, 5.0, 1.0, 2.0])

    def run():
        clock[0] += next(runs)

    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])
    assert Given(warm_up=1, runs=3, threads=1).seconds(run) == 2.0


def refusing(given):
    raise ValueError("no such library: install it")


def test_what_a_contestant_lacks_is_said_by_whoever_measures_it():
    with pytest.raises(ValueError, match="no such library: install it"):
        best(Treatment(threads=(1,)), [(refusing,)])
