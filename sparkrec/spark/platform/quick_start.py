"""What makes a local session start quickly: jars by path instead of by Ivy, and an archive of the JVM's classes.

Ivy takes seconds to resolve what it resolved the last time, and Spark copies all that it found; so the jars that a
session was started with are written down, and the next one has them on its class path. Of the ten thousand classes that
Spark loads, the JVM reads and verifies each; from an archive (class data sharing) it maps them, which `make setup`
makes. Both lie in the user's cache, under a name made of what they depend on. Where something has changed since, a
session starts as it would without them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import pyspark
from pyspark.sql import SparkSession

_SPARK_JARS = Path(pyspark.__file__).resolve().parent / "jars"


def known_jars(coordinate: str) -> list[str] | None:
    """Paths of the jars that a session with this Maven coordinate was started with, but for those that Spark has
    itself. None: there was no such session on this machine, or one of its jars is gone."""
    try:
        jars: list[str] = json.loads(_record(coordinate).read_text())
    except (OSError, ValueError):
        return None
    return jars if jars and all(os.path.exists(jar) for jar in jars) else None


def remember_jars(coordinate: str, spark: SparkSession) -> None:
    """Write down the jars that Ivy found for a session, where the cache can be written to."""
    own = {_artifact(path.name) for path in _SPARK_JARS.glob("*.jar")}
    urls = spark.sparkContext.getConf().get("spark.jars", "") or ""
    paths = [urlsplit(url).path for url in urls.split(",") if url]
    jars = [path for path in paths if _artifact(os.path.basename(path).split("_", 1)[-1]) not in own]
    record = _record(coordinate)
    beside = record.with_suffix(f".{os.getpid()}")
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(jars))
        beside.replace(record)
    except OSError:
        return


def class_archive(jars: list[str]) -> Path:
    """Where the archive of the classes of Spark and these jars is, once it has been made."""
    parts = [pyspark.__version__, str(_SPARK_JARS), *jars]
    return _cache() / f"classes-{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:16]}.jsa"


def java_options(jars: list[str] | None) -> str:
    """Options of a local session's JVM: the archive of the classes of these jars, if there is one, and, where no
    SPARK_CONF_DIR says otherwise, a log of errors alone."""
    options = []
    if "SPARK_CONF_DIR" not in os.environ:
        options.append(f"-Dlog4j2.configurationFile={files('sparkrec.spark.platform') / 'log4j2.properties'}")
    if jars is not None and (archive := class_archive(jars)).exists():
        options += [f"-XX:SharedArchiveFile={archive}", "-Xshare:auto", "-Xlog:cds=off"]
    return " ".join(map(shlex.quote, options))


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparkrec"


def _record(coordinate: str) -> Path:
    return _cache() / f"{coordinate.replace(':', '_')}.json"


def _artifact(jar: str) -> str:
    """The name of a jar without its version."""
    return re.sub(r"-\d[^/]*\.jar$", "", jar)
