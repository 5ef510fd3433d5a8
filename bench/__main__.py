"""python -m bench WHAT [--quick]: a table, and as the last line a JSON object."""

import json

import click

from bench import als, metrics, topk, training
from bench.ratings import SIZES


@click.group()
def bench() -> None:
    """Time sparkrec beside its peers; a ratio above 1 is in our favour."""


@bench.command("als")
@click.option(
    "--quick", is_flag=True, help="2 million ratings, two iterations: under two minutes but for the first time."
)
@click.option("--sizes", default="2M,20M", show_default=True, help="Of 2M, 20M and 100M.")
@click.option("--rank", default=64, show_default=True)
@click.option("--explicit", is_flag=True, help="Predict ratings instead of preferences.")
@click.option("--peers", default="mllib,implicit_exact,implicit_cg", show_default=True)
@click.option("--iterations", default=10, show_default=True)
def als_command(quick: bool, sizes: str, rank: int, explicit: bool, peers: str, iterations: int) -> None:
    """Alternating least squares: seconds an iteration, seconds a fit, memory, loss."""
    wanted = ["2M"] if quick else sizes.split(",")
    result = als.compare(wanted, rank, explicit, [*filter(None, peers.split(","))], 2 if quick else iterations)
    print(json.dumps(result))


@bench.command("topk")
@click.option("--quick", is_flag=True, help="20 thousand users and 9 thousand items.")
@click.option("--rank", default=64, show_default=True)
def topk_command(quick: bool, rank: int) -> None:
    """The best ten items of every user, seen ones excluded."""
    print(json.dumps(topk.compare(SIZES["2M" if quick else "20M"], rank)))


@bench.command("metrics")
@click.option("--quick", is_flag=True, help="Fewer users, and each peer once.")
@click.option("--scale", help="Instead: ours alone on so many users, as 100000,10000000.")
def metrics_command(quick: bool, scale: str | None) -> None:
    """Six ranking metrics at five cutoffs: seconds. Ratios are theirs over ours."""
    print(json.dumps(metrics.grow([int(each) for each in scale.split(",")]) if scale else metrics.compare(quick)))


@bench.command("training")
@click.option("--quick", is_flag=True, help="Three epochs of an eighth of the users: about half a minute a side.")
@click.option("--only", type=click.Choice([*training.CASES]), help="One case instead of all.")
def training_command(quick: bool, only: str | None) -> None:
    """Training networks: examples a second. Ratios are ours over theirs."""
    print(json.dumps(training.compare([only] if only else [*training.CASES], quick)))


bench()
