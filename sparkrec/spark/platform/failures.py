"""Failures of Spark that its user can mend, told in a sentence instead of stacks of Java and Python."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import pyspark
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

from sparkrec import object_stores
from sparkrec.errors import EnvironmentMismatch, InputError, NoSpace, SparkrecError
from sparkrec.spark.platform import delta, hadoop_aws

FAILURES = (PySparkException, Py4JJavaError)
"""What Spark raises: the latter for what failed in a task."""

_FILE = re.compile(r"\[FAILED_READ_FILE[.\w]*\] Encountered error while reading file (.+?)\.(?:\s|$)")
_MALFORMED = re.compile(r"\[MALFORMED_RECORD_IN_PARSING[.\w]*\]")
_NOT_CAST = re.compile(r"\[CAST_INVALID_INPUT\] (The value .+? because it is malformed)")
_CAUSE = re.compile(
    r"^Caused by: [\w.$]+(?:: (.*?))?(?=\n\s+at |\n\s*\.\.\. |\nCaused by: |\Z)", re.DOTALL | re.MULTILINE
)
_LABELS = re.compile(r"\[[A-Z_]+(?:\.[A-Z_]+)?\] |\s*SQLSTATE: \w+|\n?CSV file: \S+")
_NO_MODULE = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")
_OTHER_VERSION = re.compile(r"\[PYTHON_VERSION_MISMATCH\][^:\n]*: (\d+\.\d+)")
_NO_CATALOG = re.compile(r"Cannot find catalog plugin class for catalog '(.+?)': ([\w.$]+?)\.?\s")
_NO_RIGHT = re.compile(r"INSUFFICIENT_PERMISSIONS|PERMISSION_DENIED|User does not have |AccessControlException")
_FULL = re.compile(r"No space left on device|Disk quota exceeded|There is not enough space on the disk")
_WRITTEN = re.compile(r"while writing rows to (?:file:)?(\S+?)\.(?:\s|$)|(?:file|path) '([^']+)'")
_NO_PROGRAM = re.compile(r'Cannot run program "([^"]+)"')


@contextmanager
def mendable() -> Iterator[None]:
    """Raise what Spark raises within as a SparkrecError, where it is one of what a user can mend."""
    try:
        yield
    except (*FAILURES, OSError) as error:
        if (known := mended(error)) is None:
            raise
        raise known from None


def mended(error: Exception) -> SparkrecError | None:
    """The error that tells what to do about a failure of Spark, or of a file; None where it may be anything.

    NoSpace where a disk is full; EnvironmentMismatch where workers run another Python, Spark lacks S3A or a catalog, or
    Delta is built for another Spark; InputError where a store or a catalog refuses, a file cannot be read, or a value
    is no number or time.
    """
    text = str(error)
    if _FULL.search(text):
        return NoSpace(_full(text))
    if not isinstance(error, FAILURES):
        return None
    if workers := _workers(text):
        return EnvironmentMismatch(
            f"the workers {workers}, but the driver runs Python {_version()} of {sys.executable}. Set PYSPARK_PYTHON "
            "to it before the session starts, or take that of `sparkrec.session()`; on a cluster send the environment "
            "of the driver with the job, as `make pack` and spark-submit --archives do."
        )
    if lacking := hadoop_aws.lacking(text):
        return EnvironmentMismatch(lacking)
    if explained := object_stores.explained(text):
        return InputError(explained)
    if ".delta." in text and (other := delta.built_for_another(text, pyspark.__version__)) is not None:
        return other
    if catalog := _NO_CATALOG.search(text):
        return EnvironmentMismatch(
            f"the session has no class {catalog[2]}, which is to be the catalog {catalog[1]!r}. Bring its jar by "
            f"spark.jars.packages, or correct spark.sql.catalog.{catalog[1]}."
        )
    if _NO_RIGHT.search(text):
        return InputError(
            f"{reason(error)}. Whoever runs this needs the right to it: of a table SELECT and, where it is written to, "
            "MODIFY; of its schema and catalog USE, and CREATE TABLE where a table is to be made."
        )
    if file := _FILE.search(text):
        return InputError(f"cannot read {file[1]}: {reason(error)}. Mend the file, or leave it out.")
    if _MALFORMED.search(text):
        return InputError(f"there is a malformed record: {reason(error)}. Mend the source.")
    if value := _NOT_CAST.search(text):
        return InputError(f"{value[1]}. Mend the source.")
    return None


def reason(error: Exception) -> str:
    """What Spark says of a failure: the innermost cause that says anything, on one line."""
    said = [cause for cause in _CAUSE.findall(str(error)) if cause.strip()]
    text = said[-1] if said else str(error).split("\n\tat ")[0]
    return " ".join(_LABELS.sub("", text).split()).rstrip(".")[:500]


def _full(text: str) -> str:
    """What to do where a disk is full: of the lake, or that on which Spark keeps rows for a while."""
    found = _WRITTEN.search(text)
    where = f" to write {found[1] or found[2]}" if found else ""
    return (
        f"there is no space left{where}. Free some: `sparkrec clean` removes former runs of the lake, and what Spark "
        "keeps for a while is in spark.local.dir, TMPDIR and SPARKREC_SCRATCH. Then run this again; what was finished "
        "stays."
    )


def _workers(text: str) -> str | None:
    """What is wrong with the Python of the workers."""
    if version := _OTHER_VERSION.search(text):
        return f"run Python {version[1]}"
    if (module := _NO_MODULE.search(text)) and find_spec(module[1].partition(".")[0]):  # here it is
        ran = os.environ.get("PYSPARK_PYTHON", "python3")
        return f"run {ran}, which has no module {module[1]!r}"
    if program := _NO_PROGRAM.search(text):
        return f"were to run {program[1]}, which cannot be started"
    return None


def _version() -> str:
    return ".".join(map(str, sys.version_info[:2]))
