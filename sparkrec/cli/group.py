"""The command that all others are commands of, and what they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
import yaml
from pydantic import TypeAdapter, ValidationError

from sparkrec import __version__, config
from sparkrec.cli.signals import interruption
from sparkrec.secrets import masked

if TYPE_CHECKING:
    from sparkrec.spark.platform.lake import Lake


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def sparkrec() -> None:
    """Distributed training of recommender systems on Spark and Delta Lake."""


def _text(expected: str, kind: Any) -> Callable[[str], str]:
    """The type of parameters that are texts of a kind that settings have, too."""
    texts = TypeAdapter[str](kind)

    def text(found: str) -> str:
        try:
            return texts.validate_python(found)
        except ValidationError:
            message = f"found {found!r}, expected {expected}: letters, digits, '_', '.' and '-'."
            raise click.BadParameter(message) from None

    return text


NAME, MODEL = _text("a name", config.Name), _text("name or name@id", config.Reference)


def in_lake(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command that works on a lake, by `lake` and `schema`."""
    command = click.option("--schema", help="Schema of its tables, where they are a catalog's.")(command)
    return click.option("--lake", default=".lake", show_default=True, help="Folder of the lake.")(command)


def of_lake(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command about what is served under a NAME."""
    return click.argument("name", metavar="NAME", type=NAME)(in_lake(command))


def open_lake(
    files: str, schema: str | None, spark: config.SparkSettings = config.SparkSettings(), told: object = None
) -> Lake:
    """The lake, in a session that reaches the stores that settings, as they were told, mention."""
    from sparkrec.object_stores import check_bucket, mentioned
    from sparkrec.spark.platform.lake import Lake
    from sparkrec.spark.platform.session import open_session

    lake = Lake(open_session(spark, mentioned(told or files)), files, schema)
    interruption.listen()  # after the session, which has a handler of its own
    check_bucket(files)
    return lake


def say(values: object) -> None:
    """Print a result as YAML, without secrets."""
    click.echo(yaml.safe_dump(masked(values), sort_keys=False).rstrip())
