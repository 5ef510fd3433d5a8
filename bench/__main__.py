"""python -m bench WHAT [--quick]: a table, and as the last line a JSON object."""

import json
from pathlib import Path

import click

from bench import als, defaults, export, metrics, nights, small, topk, training, warm
from bench.measure import QUICK, Treatment
from bench.ratings import SIZES


@click.group()
def bench() -> None:
    """Time sparkrec beside its peers; a ratio above 1 is in our favour.

    Each contestant, ours as well, is warmed up by one run, run three times with the number of threads that is best for
    it, and its median counts. With --quick a single run on all cores shows that everything works, and measures nothing.
    """


def _treatment(quick: bool) -> Treatment:
    return QUICK if quick else Treatment()


@bench.command("als")
@click.option("--quick", is_flag=True, help="2 million ratings, two iterations.")
@click.option("--sizes", default="2M,20M", show_default=True, help="Of 2M, 20M and 100M.")
@click.option("--rank", default=64, show_default=True)
@click.option("--explicit", is_flag=True, help="Predict ratings instead of preferences.")
@click.option("--peers", default="mllib,implicit_exact,implicit_cg", show_default=True)
@click.option("--iterations", default=10, show_default=True)
def als_command(quick: bool, sizes: str, rank: int, explicit: bool, peers: str, iterations: int) -> None:
    """Alternating least squares: seconds an iteration, seconds a fit, memory, loss."""
    wanted = ["2M"] if quick else sizes.split(",")
    beside = [*filter(None, peers.split(","))]
    print(json.dumps(als.compare(wanted, rank, explicit, beside, 2 if quick else iterations, _treatment(quick))))


@bench.command("topk")
@click.option("--quick", is_flag=True, help="20 thousand users and 9 thousand items.")
@click.option("--rank", default=64, show_default=True)
def topk_command(quick: bool, rank: int) -> None:
    """The best ten items of every user, seen ones excluded."""
    print(json.dumps(topk.compare(SIZES["2M" if quick else "20M"], rank, _treatment(quick))))


@bench.command("export")
@click.option("--quick", is_flag=True, help="20 thousand users and 9 thousand items.")
@click.option("--rank", default=64, show_default=True)
def export_command(quick: bool, rank: int) -> None:
    """One user at a time without Spark: milliseconds of the best ten items, seen ones excluded, and memory."""
    print(json.dumps(export.compare(SIZES["2M" if quick else "20M"], rank, _treatment(quick))))


@bench.command("small")
@click.option("--quick", is_flag=True, help="Each contestant once.")
def small_command(quick: bool) -> None:
    """A million interactions: seconds of a fit, and of the best 20 items of all users."""
    print(json.dumps(small.compare(_treatment(quick))))


@bench.command("metrics")
@click.option("--quick", is_flag=True, help="Fewer users, and each contestant once.")
@click.option("--scale", help="Instead: ours alone on so many users, as 100000,10000000.")
def metrics_command(quick: bool, scale: str | None) -> None:
    """Six ranking metrics at five cutoffs: seconds. Ratios are theirs over ours."""
    if scale:
        print(json.dumps(metrics.grow([int(each) for each in scale.split(",")], _treatment(quick))))
    else:
        print(json.dumps(metrics.compare(quick, _treatment(quick))))


@bench.command("training")
@click.option("--quick", is_flag=True, help="An eighth of the users, one epoch after the first.")
@click.option("--only", type=click.Choice([*training.CASES]), help="One case instead of all.")
def training_command(quick: bool, only: str | None) -> None:
    """Training networks: examples a second. Ratios are ours over theirs."""
    print(json.dumps(training.compare([only] if only else [*training.CASES], quick, _treatment(quick))))


@bench.command("defaults")
@click.option("--worlds", default=",".join(defaults.WORLDS), show_default=True)
@click.option("--kinds", default="", help="Of the kinds of each world: some, as als,mf. All where it is not given.")
@click.option("--trials", default=8, show_default=True, help="Tried for a kind without a file in conf/train.")
@click.option("--folder", default="build/defaults", show_default=True, help="Where its lake is, from which it goes on.")
def defaults_command(worlds: str, kinds: str, trials: int, folder: str) -> None:
    """Models with no setting given, beside the same models tuned and beside popularity."""
    wanted = [*filter(None, kinds.split(","))]
    print(json.dumps(defaults.compare(worlds.split(","), wanted, trials, Path(folder).resolve())))


@bench.command("warm")
@click.option("--worlds", default="ml-1m-ncf,ml-100k", show_default=True)
@click.option("--kinds", default="als,mf", show_default=True)
@click.option("--steps", default=10, show_default=True, help="In which the log comes.")
@click.option("--folder", default="build/warm", show_default=True, help="Where its lake is, from which it goes on.")
def warm_command(worlds: str, kinds: str, steps: int, folder: str) -> None:
    """Models that begin with the rows of the step before: epochs and seconds to what a cold fit comes to."""
    print(json.dumps(warm.compare(worlds.split(","), kinds.split(","), steps, Path(folder).resolve())))


@bench.command("nights")
@click.option("--size", type=click.Choice([*SIZES]), default="20M", show_default=True)
@click.option("--kind", default="als", show_default=True, help="Of model.")
@click.option("--nights", "number", default=3, show_default=True, help="After the first, with 1 % new in each.")
@click.option("--cold-every", default=1, show_default=True, help="Of so many nights one begins cold.")
@click.option("--folder", default="build/nights", show_default=True, help="Where its log and its lake are.")
def nights_command(size: str, kind: str, number: int, cold_every: int, folder: str) -> None:
    """Retraining: seconds of a night by step, and what share of it is not training."""
    print(json.dumps(nights.compare(size, kind, number, cold_every, Path(folder).resolve())))


bench()
