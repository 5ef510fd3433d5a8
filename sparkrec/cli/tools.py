"""Commands that look things up, draw, forecast or export."""

from __future__ import annotations

import json

import click

from sparkrec.cli.group import MODEL, in_lake, open_lake, say, sparkrec


@sparkrec.command(short_help="What can be set: of a stage, a kind of model, or everything.")
@click.argument("name", required=False, metavar="[STAGE|KIND]")
@click.option("--json-schema", is_flag=True, help="Of the config of a STAGE, for editors.")
def settings(name: str | None, json_schema: bool) -> None:
    """Print every setting of a stage or a kind of model with its type, default and meaning."""
    from sparkrec import reference

    if not json_schema:
        click.echo(reference.page(name), nl=False)
    elif name is None:
        raise click.UsageError("--json-schema needs a STAGE.")
    else:
        click.echo(json.dumps(reference.json_schema(name), indent=2))


@sparkrec.command(short_help="A page about evaluations, the first of which others are compared with.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--lake", default=".lake", show_default=True, help="Folder of the lake.")
@click.option("--output", default="report.html", show_default=True, type=click.Path(dir_okay=False, writable=True))
def report(runs: tuple[str, ...], lake: str, output: str) -> None:
    """Write one HTML page about evaluations, by name or name@id: figures with intervals, differences to the first RUN,
    curves, segments, training, examples."""
    from sparkrec import storage
    from sparkrec.stages.reporting.page import report as page

    storage.write(output, page(lake, runs).encode())
    click.echo(output)


@sparkrec.command(short_help="A model as a folder that answers without Spark.")
@click.argument("model", metavar="MODEL", type=MODEL)
@click.argument("folder", metavar="FOLDER", type=click.Path(file_okay=False))
@in_lake
@click.option("--overwrite", is_flag=True, help="Take the place of the exported model that FOLDER has.")
def export(model: str, folder: str, lake: str, schema: str | None, overwrite: bool) -> None:
    """Write MODEL, by name or name@id, into FOLDER of this machine, which answers users and histories by
    `sparkrec.ExportedModel.load(FOLDER).recommend(...)`, and as a model of MLflow (docs/export.md)."""
    from sparkrec.stages.export import export as export_model

    told = export_model(open_lake(lake, schema), model, folder, overwrite)
    say({"folder": folder, **{key: told[key] for key in ("model", "counts", "answered_by")}})


@sparkrec.command(short_help="Forecast what an ALS fit takes on a cluster.")
@click.option("--users", type=click.IntRange(1), required=True)
@click.option("--items", type=click.IntRange(1), required=True)
@click.option("--ratings", type=click.IntRange(1), required=True)
@click.option("--rank", type=click.IntRange(1), default=64, show_default=True)
@click.option("--executors", type=click.IntRange(1), default=1, show_default=True)
@click.option("--cores", type=click.IntRange(1), default=2, show_default=True, help="Of each executor.")
@click.option("--memory", type=click.FloatRange(0, min_open=True), required=True, help="GiB of each executor.")
@click.option(
    "--network",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="Gbit a second of each executor.",
)
def plan(
    users: int, items: int, ratings: int, rank: int, executors: int, cores: int, memory: float, network: float
) -> None:
    """Blocks, memory, traffic and seconds of a fit with the exact solver, from measured costs (docs/als.md)."""
    from sparkrec.spark.algorithms.als.forecast import Cluster, Fit, forecast

    cluster = Cluster(executors, cores, memory * 2**30, network * 1e9 / 8)
    say(forecast(Fit(users, items, ratings, rank), cluster))


@sparkrec.command(short_help="The whole pipeline on a generated log.")
@click.option("--lake", default=".demo", show_default=True, help="Folder for the log and the lake.")
def demo(lake: str) -> None:
    """Generate an interaction log and run the whole pipeline on it, start to end."""
    from sparkrec.stages.demo import demo as run_demo

    run_demo(lake)
