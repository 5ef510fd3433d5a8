"""The command line: `sparkrec COMMAND`."""

from __future__ import annotations

import logging
import signal
import sys
import traceback

import click

from sparkrec.cli import scheduling, serving, stages, tools, upkeep  # noqa: F401  (they add their commands)
from sparkrec.cli.group import sparkrec
from sparkrec.cli.signals import ENDED, interruption
from sparkrec.errors import SparkrecError, exit_code, lacks_spark
from sparkrec.secrets import MaskingFormatter, masked


def main(stage: str | None = None) -> None:
    """Run the command line; `stage` is given by a job, whose arguments are those of its stage.

    Exit codes: 0 done, 1 the input or the run is at fault, 2 the settings are, 3 the champion was kept, 5 refused,
    70 a defect of sparkrec, 75 a failure of Spark or of a store, which may be another time, 130 interrupted, 143
    terminated.
    """
    interruption.listen_to(signal.SIGTERM, signal.SIGALRM)  # Spark sees to Ctrl-C until its session is there
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(MaskingFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("py4j").setLevel(logging.ERROR)
    arguments = [stage, *sys.argv[1:]] if stage else sys.argv[1:]
    try:
        code = sparkrec.main(arguments, prog_name="sparkrec", standalone_mode=False)
        if interruption.came is not None:  # and everybody went on
            _leave_on(interruption.came)
        if code:
            sys.exit(code)
    except (KeyboardInterrupt, click.Abort):
        _leave_on(interruption.came or signal.SIGINT)
    except Exception as error:
        if interruption.came is not None:
            _leave_on(interruption.came)
        if isinstance(error, ModuleNotFoundError):
            error = lacks_spark(error) or error
        if isinstance(error, SparkrecError):
            _leave(str(error), error.exit_code)
        if isinstance(error, click.ClickException):
            _leave(error.format_message(), error.exit_code)
        traceback.print_exception(error)
        sys.exit(exit_code(error))


def _leave_on(number: signal.Signals) -> None:
    _leave(ENDED[number], 128 + number)


def _leave(message: str, code: int) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(f"error: {masked(message)}", file=sys.stderr)
    sys.exit(code)
