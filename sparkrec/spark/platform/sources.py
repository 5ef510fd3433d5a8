"""Reading what a user points at: files, or a table of a catalog, with errors that name it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, DataFrameReader, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from sparkrec.config import IdSource, SourceSettings
from sparkrec.errors import InputError
from sparkrec.spark.platform.before_spark_4 import condition_of
from sparkrec.spark.platform.conf import setting
from sparkrec.spark.platform.failures import FAILURES, mended, reason

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")

MALFORMED = "_malformed"
"""Column of `read_log`: the text of a row that is not read as it is meant, else null."""

_SPECIAL = re.compile(r"([][{}*?\\])")
"""What has a meaning in a glob."""
_OF_LISTING = ("recursiveFileLookup", "pathGlobFilter", "modifiedBefore", "modifiedAfter")
_CSV = {
    "header": "true",
    "enforceSchema": "false",  # each file has the same columns in the same order, or is refused
    "columnPruning": "false",  # to see all of a header, and rows of another length
    "escape": '"',  # a quote in a quoted text is doubled (RFC 4180)
}


def read_source(spark: SparkSession, source: SourceSettings) -> DataFrame:
    """The rows of a source, lazily.

    CSV columns are strings unless `inferSchema` is among the options. Raises InputError when nothing is there, or it
    cannot be read. Files with other columns than the first, and rows that are malformed, make the job fail that reads
    them: within `failures.mendable`, with an InputError that names the file.
    """
    return _load(_reader(spark, source, {"mode": "FAILFAST"}), source)


def read_log(spark: SparkSession, source: SourceSettings, paths: Sequence[str] | None = None) -> DataFrame:
    """As `read_source`, with malformed rows of text files: their text is in a last column, MALFORMED.

    paths  some of the files; None: all

    Malformed are rows of CSV that are longer or shorter than the header, or hold a quoted text that ends too early, and
    lines of JSON that are none.
    """
    if source.format not in ("csv", "json"):  # a table has none
        return _load(_reader(spark, source, {}), source, paths)
    permissive = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": MALFORMED}
    found = _load(_reader(spark, source, permissive), source, paths).schema
    kept = [field for field in found if field.name != MALFORMED]
    schema = T.StructType([*kept, T.StructField(MALFORMED, T.StringType())])
    frame = _load(_reader(spark, source, permissive).schema(schema), source, paths)
    if source.format == "csv" and not {"escape", "quote"}.intersection(source.options):
        texts = [column(field.name) for field in kept if isinstance(field.dataType, T.StringType)]
        unread = [F.when(text.rlike(r'^".*\\"'), text) for text in texts]  # quotes that backslashes escape
        frame = frame.withColumn(MALFORMED, F.coalesce(MALFORMED, *unread))
    return frame


def _reader(spark: SparkSession, source: SourceSettings, options: dict[str, str]) -> DataFrameReader:
    if source.format is None:
        return spark.read.options(**source.options)
    form = _CSV if source.format == "csv" else {}
    return spark.read.format(source.format).options(**(form | options | source.options))


def listed_files(spark: SparkSession, source: SourceSettings) -> list[Row]:
    """The files of a source: `file`, its URI as `_metadata.file_path` has it, `path`, `size`, `modified`."""
    options = {name: value for name, value in source.options.items() if name in _OF_LISTING}
    files = _load(spark.read.format("binaryFile").options(**options), source)
    named = [F.col("length").alias("size"), F.col("modificationTime").alias("modified")]
    return files.select(F.col("_metadata.file_path").alias("file"), "path", *named).collect()


def _load(reader: DataFrameReader, source: SourceSettings, paths: Sequence[str] | None = None) -> DataFrame:
    folder = source.path if source.path is not None and not _SPECIAL.search(source.path) else None
    if paths and folder and not any(path.endswith(folder) for path in paths):
        reader = reader.option("basePath", folder)  # the names of folders below it may be columns
    try:
        if source.table:
            frame = reader.table(identifier(source.table))
        else:
            frame = reader.load(source.path if paths is None else [_SPECIAL.sub(r"\\\1", path) for path in paths])
        _ = frame.schema  # Connect analyses lazily
    except FAILURES as error:
        if (known := mended(error)) is not None:
            raise known from None
        condition = condition_of(error) if isinstance(error, PySparkException) else None
        how = f" as {source.format}" if source.format else ""
        why = {
            "PATH_NOT_FOUND": "there is no such file or folder",
            "UNABLE_TO_INFER_SCHEMA": "there is no data in it",
            "TABLE_OR_VIEW_NOT_FOUND": "the catalog has no such table or view",
            "REQUIRES_SINGLE_PART_NAMESPACE": "there is no such catalog",
        }.get(condition or "", f"it is not readable{how} ({reason(error)})")
        where = (
            "source.table (catalog.schema.table)"
            if source.table
            else "source.path (a file, folder or glob), source.format"
        )
        raise InputError(f"cannot read {source.label}: {why}. Correct {where} or source.options.") from None
    return frame


def whole_path(path: str) -> str:
    """A path from the root on: Delta's SQL takes no other, and the folder in which a JVM was started need not be that
    of this process."""
    return path if _SCHEME.match(path) else os.path.abspath(path)


def quoted(name: str) -> str:
    """A name as Spark's SQL and schemas take it, whatever characters it has."""
    return "`" + name.replace("`", "``") + "`"


def identifier(table: str) -> str:
    """The full name of a table or schema, its parts divided by dots, as Spark's SQL takes it."""
    return ".".join(map(quoted, table.split(".")))


def column(name: str) -> Column:
    """A column by its exact name, dots and all."""
    return F.col(quoted(name))


def numbers(frame: DataFrame, name: str) -> Column:
    """A column of numbers, as float. Raises InputError, with some of its values, where it has another type."""
    kind = frame.schema[name].dataType
    if not isinstance(kind, T.NumericType | T.BooleanType):
        some = frame.select(column(name).cast("string")).dropna().distinct().limit(3).collect()
        raise InputError(
            f"column {name!r} is {kind.simpleString()}, such as {', '.join(repr(row[0]) for row in some) or 'null'}: "
            "expected numbers. Cast it, as by try_cast after replacing a decimal comma."
        )
    return column(name).cast("float")


def resolved(frame: DataFrame, wanted: Sequence[str], label: str, optional: Sequence[str] = ()) -> DataFrame:
    """The frame, its columns called as in `wanted` and `optional`: they are found by Spark's rule, whatever the case
    unless `spark.sql.caseSensitive` is set.

    Raises InputError for a wanted one that is not there, and for any that is there more than once.
    """
    exact = (setting(frame.sparkSession, "spark.sql.caseSensitive") or "").lower() == "true"
    names = frame.columns
    found: dict[str, str] = {}
    for name in dict.fromkeys([*wanted, *optional]):
        alike = [each for each in names if each == name or (not exact and each.lower() == name.lower())]
        if not alike and name in optional:
            continue
        if not alike:
            raise InputError(f"{label} has no column {name!r}. It has {', '.join(map(repr, names))}.")
        if len(alike) > 1:
            raise InputError(f"{label} has more than one column {name!r}: {', '.join(map(repr, alike))}. Rename one.")
        if alike[0] != name:
            found[alike[0]] = name
    return frame.withColumnsRenamed(found) if found else frame


def read_columns(
    spark: SparkSession, source: SourceSettings, names: Sequence[str], label: str | None = None
) -> DataFrame:
    """A source whose columns `names` are found as Spark resolves names: see `resolved`.

    label  what to call it in errors; None: its path or name
    """
    return resolved(read_source(spark, source), names, label or source.label)


def read_ids(spark: SparkSession, ids: IdSource) -> DataFrame:
    """The distinct, non-null ids of a list, in a column `id`."""
    frame = read_columns(spark, ids.source, [ids.column])
    return frame.select(column(ids.column).alias("id")).dropna().distinct()
