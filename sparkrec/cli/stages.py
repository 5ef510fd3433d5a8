"""`sparkrec STAGE --config FILE key.sub=value ...`"""

from __future__ import annotations

import logging

import click

from sparkrec.cli.group import open_lake, say, sparkrec
from sparkrec.configfile import load
from sparkrec.errors import CHAMPION_KEPT


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
    def command(
        config: str | None, dry_run: bool, verbose: bool, overrides: tuple[str, ...], kept_is_done: bool = False
    ) -> None:
        if verbose:
            logging.getLogger("sparkrec").setLevel(logging.DEBUG)
        code = _run_stage(name, config, overrides, dry_run)
        if code and not (kept_is_done and code == CHAMPION_KEPT):
            raise click.exceptions.Exit(code)

    if name == "retrain":
        command.params.append(
            click.Option(["--kept-is-done"], is_flag=True, help="End with 0 where the champion was kept, not with 3.")
        )


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


def _run_stage(name: str, config: str | None, overrides: tuple[str, ...], dry_run: bool) -> int:
    """The exit code."""
    from sparkrec.stages.catalog import STAGES

    stage = STAGES[name]
    settings = load(stage.settings, config, overrides)  # before Spark starts: a typo costs no minute
    stage.check(settings)
    try:
        lake = open_lake(settings.files, settings.schema_of_tables, settings.spark, settings.model_dump(mode="json"))
    except Exception as error:
        if not dry_run:
            stage.not_begun(settings, error)
        raise
    if dry_run:
        resolved = {"settings": settings.model_dump(mode="json", by_alias=True), **stage.plan(settings, lake).report()}
        say(resolved)
        return 0
    result = stage.run(settings, lake)
    say(result.report())
    return stage.exit_code(result)
