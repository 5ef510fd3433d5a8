"""What is served under a name, since when, and how to go back."""

from __future__ import annotations

import datetime as dt

import click

from sparkrec.cli.group import MODEL, of_lake, open_lake, say, sparkrec
from sparkrec.errors import InputError


@sparkrec.command(short_help="Which model is served under a name, or was.")
@of_lake
@click.option(
    "--at", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]), help="An instant (UTC). Now if not given."
)
def champion(name: str, lake: str, schema: str | None, at: dt.datetime | None) -> None:
    """Print the champion of NAME: its model and lists, since when, why and by whom."""
    from sparkrec.stages.retraining import champions

    found = champions.champion(open_lake(lake, schema), name, at and at.replace(tzinfo=dt.timezone.utc))
    if found is None:
        raise InputError(f"nothing is served under {name!r}{f' at {at}' if at else ' yet'}.")
    say(champions.told(found))


@sparkrec.command(short_help="What is served under a name, and what came of the last nights.")
@of_lake
def status(name: str, lake: str, schema: str | None) -> None:
    """Print the champion of NAME, who holds the name, the last nights, latest first, what was odd about the data, ages,
    bytes, and what to do next."""
    from sparkrec.stages.retraining.status import status as status_of

    say(status_of(open_lake(lake, schema), name))


@sparkrec.command(short_help="Serve the lists of a model under a name, whatever a gate says.")
@of_lake
@click.argument("model", metavar="MODEL", type=MODEL)
@click.option("--serve", "served", help="Table of the lists that are served. That of the champion if not given.")
@click.option("--reason", default="by name", show_default=True, help="For the history.")
def promote(name: str, model: str, lake: str, schema: str | None, served: str | None, reason: str) -> None:
    """Make MODEL, by name or name@id, the champion of NAME, once its lists are fit to be served."""
    from sparkrec.stages.retraining import champions

    say(champions.promote_by_name(open_lake(lake, schema), name, model, served, reason))


@sparkrec.command(short_help="Serve a former champion of a name again.")
@of_lake
@click.option("--to", metavar="MODEL", type=MODEL, help="name@id of the former champion. The last one if not given.")
@click.option("--reason", default="rolled back", show_default=True, help="For the history.")
def rollback(name: str, lake: str, schema: str | None, to: str | None, reason: str) -> None:
    """Serve the lists of the champion before again. The one that was served is not promoted again but by name."""
    from sparkrec.stages.retraining import champions

    say(champions.rollback_by_name(open_lake(lake, schema), name, to, reason))


@sparkrec.command(short_help="A page about many nights of a name.")
@of_lake
@click.option("--output", default="history.html", show_default=True, type=click.Path(dir_okay=False, writable=True))
def history(name: str, lake: str, schema: str | None, output: str) -> None:
    """Write one HTML page about NAME: champion and challengers by night, what the gate saw, what came in, what became
    of what was served, checks, and what took time."""
    from sparkrec import storage
    from sparkrec.stages.reporting.history import history as page
    from sparkrec.stages.reporting.rendering import require_drawing

    require_drawing()  # before Spark starts
    storage.write(output, page(open_lake(lake, schema), name).encode())
    click.echo(output)
