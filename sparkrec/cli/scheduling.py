"""When nights are run: one config, written down for a scheduler."""

from __future__ import annotations

import os
import shutil
import sys

import click

from sparkrec.cli.group import sparkrec

_TARGETS = ("crontab", "airflow", "databricks", "spark-submit")


@sparkrec.group(short_help="Write down for a scheduler when a config of retrain is run.")
def schedule() -> None:
    """Write down for a scheduler when a config of `sparkrec retrain` is run, which is its `schedule`."""


@schedule.command(short_help="A crontab, a DAG of Airflow, a bundle of Databricks, or a script.")
@click.option("--config", required=True, type=click.Path(), help="YAML file of `sparkrec retrain`, with a schedule.")
@click.option("--to", "target", required=True, type=click.Choice(_TARGETS), help="Who is to run it.")
@click.option("--output", type=click.Path(dir_okay=False, writable=True), help="File to write. Printed if not given.")
@click.option("--directory", help="Where it is to run, and relative paths begin. This folder if not given.")
@click.option("--program", help="The command line there. The one that renders if not given.")
@click.argument("overrides", nargs=-1, metavar="[KEY.SUB=VALUE]...")
def render(
    config: str,
    target: str,
    output: str | None,
    directory: str | None,
    program: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Write down when a night is run, how long it may take and how often it is tried again."""
    from sparkrec import storage
    from sparkrec.stages.scheduling import TARGETS
    from sparkrec.stages.scheduling.scheduled import scheduled

    here = shutil.which("sparkrec", path=os.path.dirname(sys.executable)) or "sparkrec"
    text = TARGETS[target](scheduled(config, overrides, directory or os.getcwd(), program or here))
    if output is None:
        click.echo(text, nl=False)
    else:
        storage.write(output, text.encode())
        click.echo(output)
