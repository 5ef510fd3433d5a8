"""Delta Lake: which of its jars fit a Spark, whether a session has it, and what it says where writers meet."""

from __future__ import annotations

import os
import re
from importlib.metadata import PackageNotFoundError, version
from weakref import WeakSet

from pyspark.sql import SparkSession

from sparkrec.errors import EnvironmentMismatch

EXTENSION = "io.delta.sql.DeltaSparkSessionExtension"
CATALOG = "org.apache.spark.sql.delta.catalog.DeltaCatalog"

_BUILT_FOR = ("4.0", "4.1", "4.2")
"""Minor versions of Spark that Delta has jars of their own for, since its 4.1; a later Spark gets the last of them."""
_NOWHERE = "/no-such-folder-of-sparkrec"
_NO_DELTA = re.compile(r"DATA_SOURCE_NOT_FOUND|DELTA_CONFIGURE_SPARK_SESSION|ClassNotFoundException")
_OTHER_SPARK = re.compile(
    r"(NoSuchMethod|NoSuchField|NoClassDefFound|AbstractMethod|IncompatibleClassChange|Verify)Error"
)
_CONFLICT = re.compile(
    r"DELTA_(CONCURRENT|METADATA_CHANGED|PROTOCOL_CHANGED)|(Concurrent\w*|MetadataChanged|ProtocolChanged)Exception"
)
_probed: WeakSet[SparkSession] = WeakSet()


def is_conflict(error: Exception) -> bool:
    """Whether Delta refused a commit because another was made at the same moment."""
    return bool(_CONFLICT.search(f"{type(error).__name__}: {error}"))


def on_databricks() -> bool:
    """Whether this is a runtime of Databricks, which has a Delta of its own."""
    return "DATABRICKS_RUNTIME_VERSION" in os.environ


def installed() -> str | None:
    """Version of the package delta-spark; None where it is not installed."""
    try:
        return version("delta-spark")
    except PackageNotFoundError:
        return None


def coordinate(spark: str, delta: str) -> str:
    """Maven coordinate of the jars of a Delta for a Spark, by their versions."""
    minor, of_delta = _minor(spark), _minor(delta)
    if minor < [4, 0]:
        return f"io.delta:delta-spark_2.12:{delta}"
    if of_delta < [4, 1]:
        return f"io.delta:delta-spark_2.13:{delta}"
    built = [each for each in _BUILT_FOR if _minor(each) <= minor]
    return f"io.delta:delta-spark_{built[-1]}_2.13:{delta}"


def _minor(version: str) -> list[int]:
    return [int(part) for part in version.split(".")[:2]]


def require_delta(spark: SparkSession) -> None:
    """Raise EnvironmentMismatch unless a session reads and writes Delta, told once by asking it to read."""
    if on_databricks() or spark in _probed:
        return
    try:
        _ = spark.read.format("delta").load(_NOWHERE).schema
    except Exception as error:
        text = str(error)
        if (other := built_for_another(text, spark.version)) is not None:
            raise other from None
        if _NO_DELTA.search(text):
            raise EnvironmentMismatch(f"the Spark session has no Delta. {_remedy(spark.version)}") from None
    _probed.add(spark)


def built_for_another(text: str, spark: str) -> EnvironmentMismatch | None:
    """What to do where Delta meets classes of a Spark that it was not built for, by what a failure says; None where it
    is another failure. Delta may start on such a Spark, and fail when it first reads a table."""
    found = _OTHER_SPARK.search(text)
    if found is None:
        return None
    has_delta = _minor(spark) <= _minor(_BUILT_FOR[-1])
    remedy = _remedy(spark) if has_delta else f"Delta is for Spark {', '.join(_BUILT_FOR)}: take one of them."
    return EnvironmentMismatch(
        f"the session's Delta is built for another Spark than {spark} ({found[0]}). {remedy} ALS, fit and evaluate on "
        "DataFrames need no Delta."
    )


def _remedy(spark: str) -> str:
    own = installed()
    if own is None:
        return f"Install it beside Spark {spark}: pip install 'sparkrec[spark]' brings a pair that fits."
    return (
        f"Submit with --properties-file conf/spark/local.conf, or with --packages {coordinate(spark, own)} "
        f"--conf spark.sql.extensions={EXTENSION} --conf spark.sql.catalog.spark_catalog={CATALOG}"
    )
