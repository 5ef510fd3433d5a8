"""How contestants are measured: all alike."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
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


@pytest.mark.spark
@pytest.mark.parametrize("case", ["neumf_2048", "fm", "sasrec_ce", "caser", "item2vec"])
def test_training_is_measured_on_what_the_pipeline_would_train_on(spark, tmp_path, monkeypatch, case):
    from bench import sequences, training

    for module in ("bench.spark", "bench.training"):
        monkeypatch.setattr(f"{module}.session", lambda *_: NeverStopped(spark))
    columns = {"user_id": [1, 1, 2, 2, 2, 3], "item_id": [0, 1, 1, 2, 3, 0]}
    if case in sequences.SEQUENCES and case != "item2vec":
        columns["position"] = [0, 1, 0, 1, 2, 0]
    if case == "fm":
        columns = {"user": columns["user_id"], "item": columns["item_id"]}
        columns |= {name: [0, 1, 0, 1, 0, 1] for name in training.FRAPPE_CONTEXT}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    row = training._ours(case, str(tmp_path / "log.parquet"), Given(warm_up=1, runs=1, threads=1))
    assert row["examples_per_second"] > 0


class NeverStopped:
    """A session that others go on with."""

    def __init__(self, session):
        self.read = session.read

    def stop(self):
        pass
