"""`sparkrec STAGE --config FILE key.sub=value ...`"""

from __future__ import annotations

import datetime as dt
import json
import logging
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

import click
import yaml
from pydantic import TypeAdapter, ValidationError

from sparkrec import __version__, config
from sparkrec.configfile import load
from sparkrec.errors import InputError, SparkrecError, lacks_spark
from sparkrec.secrets import MaskingFormatter, masked

if TYPE_CHECKING:
    from sparkrec.spark.platform.lake import Lake

_ENDED = {
    signal.SIGINT: "interrupted. What was finished is kept; run the same command to go on.",
    signal.SIGTERM: "terminated. What was finished is kept; run the same command to go on.",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def sparkrec() -> None:
    """Distributed training of recommender systems on Spark and Delta Lake."""


class _StageCommand(click.Command):
    """Its help names the settings of the stage."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from sparkrec.reference import sections

        assert self.name is not None
        settings = [each for each in sections(self.name)[0].settings if "." not in each.key]
        with formatter.section(f"Settings, in full by `sparkrec settings {self.name}`"):
            formatter.write_dl([(each.key, f"({each.facts}) {each.summary}") for each in settings])
        formatter.write_paragraph()
        formatter.write_text(_HOW_TO_SET)


_HOW_TO_SET = (
    "A setting on the command line goes over that of the file: KEY.SUB=VALUE, the value as YAML, entries of lists by "
    "number from 0 (train.1.model.rank=8). In both, ${NAME} is an environment variable, ${NAME:-VALUE} with a default."
)


def _add(name: str, summary: str) -> None:
    @sparkrec.command(name, cls=_StageCommand, help=summary, short_help=summary)
    @click.option("--config", type=click.Path(), help="YAML file of settings.")
    @click.option("--dry-run", is_flag=True, help="Print all settings, what would be read and written, and do nothing.")
    @click.option("--verbose", is_flag=True, help="Tell where plans are carried out, and how many jobs Spark runs.")
    @click.argument("overrides", nargs=-1, metavar="[KEY.SUB=VALUE]...")
    def command(config: str | None, dry_run: bool, verbose: bool, overrides: tuple[str, ...]) -> None:
        if verbose:
            logging.getLogger("sparkrec").setLevel(logging.DEBUG)
        _run_stage(name, config, overrides, dry_run)


for _name, _summary in {
    "ingest": "Take a batch of an interaction log into a Delta table.",
    "prepare": "Turn interactions into a dataset: integer ids, values, splits.",
    "train": "Fit one model to one dataset.",
    "tune": "Try settings of a model by cross-validation or on the validation split.",
    "evaluate": "Measure a model on a held-out split.",
    "recommend": "Write the best k items of every user.",
    "run": "All stages in order, from one config.",
    "retrain": "All stages again on what has come, and serve the new model where it is not worse.",
}.items():
    _add(_name, _summary)


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


class _Text(click.ParamType[str]):
    """A text of a kind that settings have, too."""

    def __init__(self, name: str, kind: Any) -> None:
        self.name, self._kind = name, TypeAdapter(kind)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._kind.validate_python(value)
        except ValidationError:
            self.fail(f"found {value!r}, expected {self.name}: letters, digits, '_', '.' and '-'.", param, ctx)


_NAME, _MODEL = _Text("a name", config.Name), _Text("name or name@id", config.Reference)


def _of_lake(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command about what is served under a NAME."""
    command = click.option("--schema", help="Schema of its tables, where they are a catalog's.")(command)
    command = click.option("--lake", default=".lake", show_default=True, help="Folder of the lake.")(command)
    return click.argument("name", metavar="NAME", type=_NAME)(command)


@sparkrec.command(short_help="Which model is served under a name, or was.")
@_of_lake
@click.option(
    "--at", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]), help="An instant (UTC). Now if not given."
)
def champion(name: str, lake: str, schema: str | None, at: dt.datetime | None) -> None:
    """Print the champion of NAME: its model and lists, since when, why and by whom."""
    from sparkrec.stages.retraining import champions

    found = champions.champion(_lake(lake, schema), name, at and at.replace(tzinfo=dt.timezone.utc))
    if found is None:
        raise InputError(f"nothing is served under {name!r}{f' at {at}' if at else ' yet'}.")
    click.echo(yaml.safe_dump(masked(champions.told(found)), sort_keys=False).rstrip())


@sparkrec.command(short_help="What is served under a name, and what came of the last nights.")
@_of_lake
def status(name: str, lake: str, schema: str | None) -> None:
    """Print the champion of NAME, who holds the name, and the last nights, latest first."""
    from sparkrec.stages.retraining import champions

    click.echo(yaml.safe_dump(masked(champions.status(_lake(lake, schema), name)), sort_keys=False).rstrip())


@sparkrec.command(short_help="Serve the lists of a model under a name, whatever a gate says.")
@_of_lake
@click.argument("model", metavar="MODEL", type=_MODEL)
@click.option("--serve", "served", help="Table of the lists that are served. That of the champion if not given.")
@click.option("--reason", default="by name", show_default=True, help="For the history.")
def promote(name: str, model: str, lake: str, schema: str | None, served: str | None, reason: str) -> None:
    """Make MODEL, by name or name@id, the champion of NAME, once its lists are fit to be served."""
    from sparkrec.stages.retraining import champions

    click.echo(yaml.safe_dump(champions.promote_by_name(_lake(lake, schema), name, model, served, reason)).rstrip())


@sparkrec.command(short_help="Serve a former champion of a name again.")
@_of_lake
@click.option("--to", metavar="MODEL", type=_MODEL, help="name@id of the former champion. The last one if not given.")
@click.option("--reason", default="rolled back", show_default=True, help="For the history.")
def rollback(name: str, lake: str, schema: str | None, to: str | None, reason: str) -> None:
    """Serve the lists of the champion before again. The one that was served is not promoted again but by name."""
    from sparkrec.stages.retraining import champions

    click.echo(yaml.safe_dump(champions.rollback_by_name(_lake(lake, schema), name, to, reason)).rstrip())


def _lake(
    files: str, schema: str | None, spark: config.SparkSettings = config.SparkSettings(), told: object = None
) -> Lake:
    """The lake, in a session that reaches the stores that settings, as they were told, mention."""
    from sparkrec.object_stores import check_bucket, mentioned
    from sparkrec.spark.platform.lake import Lake
    from sparkrec.spark.platform.session import open_session

    lake = Lake(open_session(spark, mentioned(told or files)), files, schema)
    _interruption.listen()  # after the session, which has a handler of its own
    check_bucket(files)
    return lake


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
    click.echo(yaml.safe_dump(forecast(Fit(users, items, ratings, rank), cluster), sort_keys=False).rstrip())


@sparkrec.command(short_help="The whole pipeline on a generated log.")
@click.option("--lake", default=".demo", show_default=True, help="Folder for the log and the lake.")
def demo(lake: str) -> None:
    """Generate an interaction log and run the whole pipeline on it, start to end."""
    from sparkrec.stages.demo import demo as run_demo

    run_demo(lake)


def _run_stage(name: str, config: str | None, overrides: tuple[str, ...], dry_run: bool) -> None:
    from sparkrec.stages.catalog import STAGES

    stage = STAGES[name]
    settings = load(stage.settings, config, overrides)  # before Spark starts: a typo costs no minute
    stage.check(settings)
    lake = _lake(settings.files, settings.schema_of_tables, settings.spark, settings.model_dump(mode="json"))
    if dry_run:
        resolved = {"settings": settings.model_dump(mode="json", by_alias=True), **stage.plan(settings, lake).report()}
        click.echo(yaml.safe_dump(masked(resolved), sort_keys=False).rstrip())
        return
    result = stage.run(settings, lake)
    click.echo(yaml.safe_dump(masked(result.report()), sort_keys=False).rstrip())
    if code := stage.exit_code(result):
        raise click.exceptions.Exit(code)


class _Interruption:
    """Ctrl-C reaches the Python workers too, so what ends the run may be a failed job instead of KeyboardInterrupt; and
    so may SIGTERM.

    Where a finalizer runs, and Py4J's run all the time, Python prints what is raised and goes on: raise it again. A
    library may catch it, too, and go on: raise it once more when there has been time to end.
    """

    PATIENCE = 15.0
    """Seconds until it is raised once more."""

    came: signal.Signals | None = None
    """The first one, SIGINT or SIGTERM."""

    def listen(self) -> None:
        self.listen_to(*_ENDED, signal.SIGALRM)
        sys.unraisablehook = self._swallowed

    def listen_to(self, *numbers: signal.Signals) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # a task of Databricks may be called in another one, and signals are no business of it
        for number in numbers:
            signal.signal(number, self._came)

    def _came(self, number: int, frame: FrameType | None) -> None:
        if self.came is None and number in _ENDED:
            self.came = signal.Signals(number)
            signal.setitimer(signal.ITIMER_REAL, self.PATIENCE, self.PATIENCE)
            logging.disable(logging.ERROR)  # what ends with the run; Py4J tells it to the root logger, too
            # By a thread: Py4J's connection of this one may wait for an answer.
            threading.Thread(target=_silence_spark, daemon=True).start()
        raise KeyboardInterrupt

    def _swallowed(self, unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.05, self.PATIENCE)
        else:
            sys.__unraisablehook__(unraisable)


_interruption = _Interruption()


def main(stage: str | None = None) -> None:
    """Run the command line; `stage` is given by a job, whose arguments are those of its stage.

    Exit codes: 0 done, 1 the input or the run is at fault, 2 the settings are, 3 the champion was kept, 5 refused,
    70 a defect of sparkrec, 75 a failure of Spark or of a store, which may be another time, 130 interrupted, 143
    terminated.
    """
    _interruption.listen_to(signal.SIGTERM, signal.SIGALRM)  # Spark sees to Ctrl-C until its session is there
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(MaskingFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("py4j").setLevel(logging.ERROR)
    arguments = [stage, *sys.argv[1:]] if stage else sys.argv[1:]
    try:
        code = sparkrec.main(arguments, prog_name="sparkrec", standalone_mode=False)
        if _interruption.came is not None:  # and everybody went on
            _leave_on(_interruption.came)
        if code:
            sys.exit(code)
    except (KeyboardInterrupt, click.Abort):
        _leave_on(_interruption.came or signal.SIGINT)
    except Exception as error:
        if _interruption.came is not None:
            _leave_on(_interruption.came)
        if isinstance(error, ModuleNotFoundError):
            error = lacks_spark(error) or error
        if isinstance(error, SparkrecError):
            _leave(str(error), error.exit_code)
        if isinstance(error, click.ClickException):
            _leave(error.format_message(), error.exit_code)
        traceback.print_exception(error)
        sys.exit(_MAY_PASS if _may_pass(error) else _DEFECT)


_DEFECT, _MAY_PASS = 70, 75
"""Exit codes, as in sysexits.h."""


def _may_pass(error: Exception) -> bool:
    """Whether a run that failed so may do well another time."""
    if isinstance(error, OSError | MemoryError):
        return True
    from sparkrec.spark.platform.failures import FAILURES

    return isinstance(error, FAILURES)


def _silence_spark() -> None:
    from pyspark import SparkContext

    with suppress(Exception):  # it may be gone already
        if context := SparkContext._active_spark_context:
            context.setLogLevel("OFF")


def _leave_on(number: signal.Signals) -> None:
    _leave(_ENDED[number], 128 + number)


def _leave(message: str, code: int) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(f"error: {masked(message)}", file=sys.stderr)
    sys.exit(code)
