"""What is forecast follows from what the engine does."""

import pytest
import yaml
from click.testing import CliRunner

from sparkrec.cli import sparkrec
from sparkrec.spark.algorithms.als.forecast import Cluster, Fit, forecast
from sparkrec.spark.algorithms.als.plan import block_count, memory_of_task

MOVIES = Fit(138_000, 27_000, 20_000_000, 64)


def cluster(executors=1, cores=2, gib=10.0, network=1.25e9):
    return Cluster(executors, cores, gib * 2**30, network)


def test_it_tells_the_heap_with_which_the_driver_does_without_spark():
    assert forecast(MOVIES, cluster())["gib"]["driver_heap_for_in_place"] == pytest.approx(
        MOVIES.ratings * 20 * 32 / 2**30, rel=0.05
    )


def test_blocks_are_those_that_a_fit_would_have():
    small = cluster(gib=1.0)
    blocks = block_count(MOVIES.ratings, MOVIES.users, MOVIES.rank, 2, memory_of_task(small.memory, 2))
    assert blocks > 2
    assert forecast(MOVIES, small)["blocks"]["items"] == blocks


def test_every_block_of_items_needs_nearly_all_users():
    told = forecast(MOVIES, cluster())
    assert told["blocks"] == {"users": 2, "items": 2}
    everything = 2 * (MOVIES.users + MOVIES.items) * 64 * 4 / 2**30
    assert told["gib"]["shuffled_per_iteration"] == pytest.approx(everything, rel=0.05)


def test_more_executors_take_less_time_and_one_sends_nothing():
    one, four, many = (forecast(MOVIES, cluster(executors=n))["seconds"] for n in (1, 4, 16))
    assert one["iteration"] > four["iteration"] > many["iteration"]
    assert one["of_which"]["network"] == 0 < four["of_which"]["network"]


@pytest.mark.parametrize(
    ("fit", "given", "limit"),
    [
        (Fit(10**9, 10**7, 10**11, 64), cluster(250, 8, 32.0), "16384 are the most there can be"),
        (MOVIES, cluster(gib=0.4), "read from disk in each iteration"),
        (Fit(10**9, 10**7, 10**11, 64), cluster(250, 8, 64.0), "blocks become uneven beyond 1024"),
    ],
)
def test_what_will_not_go_well_is_said(fit, given, limit):
    assert forecast(MOVIES, cluster())["limits"] == []
    assert limit in " ".join(forecast(fit, given)["limits"])


def test_the_command_prints_it():
    asked = "plan --users 138000 --items 27000 --ratings 20000000 --rank 64 --executors 1 --memory 10"
    printed = CliRunner().invoke(sparkrec, asked.split())
    assert printed.exit_code == 0
    assert yaml.safe_load(printed.output) == forecast(MOVIES, cluster())
    wrong = CliRunner().invoke(sparkrec, asked.replace("138000", "0").split())
    assert (wrong.exit_code, "0 is not in the range x>=1" in wrong.output) == (2, True)
