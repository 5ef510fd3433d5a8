"""What is old goes, and who asks for it is forgotten."""

from __future__ import annotations

import click

from sparkrec import config, storage
from sparkrec.cli.group import in_lake, open_lake, say, sparkrec
from sparkrec.errors import InputError


@sparkrec.command(short_help="Remove runs that are neither new, nor served, nor needed.")
@in_lake
@click.option(
    "--runs", type=click.IntRange(1), default=3, show_default=True, help="Newest of a stage and name that stay."
)
@click.option("--days", type=click.FloatRange(0), default=30.0, show_default=True, help="Younger ones stay, too.")
@click.option("--vacuum/--no-vacuum", default=True, show_default=True, help="Delete files of old versions of tables.")
@click.option("--dry-run", is_flag=True, help="List what would go and its bytes, and do nothing.")
def clean(lake: str, schema: str | None, runs: int, days: float, vacuum: bool, dry_run: bool) -> None:
    """Remove datasets, models, lists, evaluations and tunings by number and age: never a champion or the one before it,
    nor what anything that stays was made of."""
    from sparkrec.stages.upkeep.clean import clean_alone

    settings = config.RetentionSettings(runs=runs, days=days, vacuum=vacuum)
    say(clean_alone(settings, open_lake(lake, schema), dry_run))


@sparkrec.command(short_help="Remove users from every table and every run.")
@click.argument("users", nargs=-1, metavar="USER...")
@click.option("--file", "path", help="Text file of further users, one id a line.")
@click.option("--reason", default="on request", show_default=True, help="For the receipt.")
@in_lake
def forget(users: tuple[str, ...], path: str | None, reason: str, lake: str, schema: str | None) -> None:
    """Remove each USER, by the id in the log: interactions, rows of datasets, models and evaluations, lists. Prints the
    receipt. Remove them at the source, too, or they come back."""
    from sparkrec.stages.upkeep.forget import forget as forget_users

    listed = [line.strip() for line in storage.read(path).decode().splitlines()] if path else []
    wanted = list(dict.fromkeys(filter(None, [*users, *listed])))
    if not wanted:
        raise InputError("no user is named: give ids, or --file with one a line.")
    say(forget_users(open_lake(lake, schema), wanted, reason))
