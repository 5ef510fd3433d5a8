"""What a user can do wrong, and what to do about it.

Every message says what was found, what was expected and what to do next. The command line prints the message alone
and exits with `exit_code`; a traceback means a defect of sparkrec, never of its input.
"""

import sys

from sparkrec.secrets import masked

_SPARK = ("pyspark", "py4j")


class SparkrecError(Exception):
    """Base of every error that its reader can mend. Passwords of URLs in its message are masked."""

    exit_code = 1

    def __init__(self, *args: object) -> None:
        super().__init__(*masked(args))


CHAMPION_KEPT, DEFECT, MAY_PASS = 3, 70, 75
"""Exit codes: of a night after which the champion is the same; and, as in sysexits.h, of a defect of sparkrec and of
what may do well another time."""


def exit_code(error: BaseException) -> int:
    """Of a process that this ends: what a user can mend has its own; a failure of Spark, of a store or for want of
    memory may pass."""
    if isinstance(error, SparkrecError):
        return error.exit_code
    of_spark = any(each.__module__.partition(".")[0] in _SPARK for each in type(error).__mro__)
    return MAY_PASS if of_spark or isinstance(error, OSError | MemoryError) else DEFECT


class ConfigError(SparkrecError):
    """A setting is unknown, of the wrong type or outside its range."""

    exit_code = 2


class InputError(SparkrecError):
    """What a stage reads is missing, empty, or not what it was said to be."""


class IngestError(InputError):
    """A batch cannot be taken into the interactions table."""


class PrepareError(InputError):
    """The interactions cannot be turned into the dataset that was asked for."""


class TrainError(SparkrecError):
    """A model cannot be fitted to this dataset with these settings."""


class EvaluateError(InputError):
    """The model cannot be measured in the way that was asked for."""


class Refused(SparkrecError):
    """What was asked for is not done, to keep what is there: another run has it, it is too late, or it is unfit."""

    exit_code = 5


class NoSpace(SparkrecError):
    """A disk is full."""

    exit_code = MAY_PASS


class EnvironmentMismatch(SparkrecError):
    """Spark, Delta, Java or Python do not fit together."""


def lacks_spark(error: ImportError) -> EnvironmentMismatch | None:
    """What to do about a module that was not found, where it is one of pyspark, which comes with an extra or a cluster;
    None where it is another."""
    package = (error.name or "").partition(".")[0]
    if package not in _SPARK:
        return None
    return EnvironmentMismatch(
        f"sparkrec runs on Spark, and {sys.executable} has no module {package!r}. On one machine: pip install "
        "'sparkrec[spark]'. On a cluster run it with the cluster's Python, which has its own."
    )
