"""S3A, Spark's client of S3: which jars bring it, and what a session is told that is opened here."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import pyspark

from sparkrec.object_stores import is_of_aws

EXCLUDED = "software.amazon.awssdk:bundle"
"""All of AWS's SDK in one jar of 690 MB. What S3A uses of it is 15 MB in jars of their own."""

_SDK_OF = {"3.4.1": "2.24.6", "3.4.2": "2.29.52", "3.4.3": "2.35.4", "3.5.0": "2.35.4"}
"""Version of the SDK that each Hadoop is built with."""
_MODULES = ("s3", "sts", "s3-transfer-manager", "apache-client", "netty-nio-client")
_IMPLEMENTATION = "org.apache.hadoop.fs.s3a.S3AFileSystem"
_LACKS_S3A = re.compile(rf"Class {re.escape(_IMPLEMENTATION)} not found|NoClassDefFoundError: software/amazon/awssdk")
_LACKS_S3 = re.compile(r'No FileSystem for scheme "?s3"?(?!\w)')
_PATIENCE = {
    "spark.hadoop.fs.s3a.attempts.maximum": "3",
    "spark.hadoop.fs.s3a.retry.limit": "3",
    "spark.hadoop.fs.s3a.connection.establish.timeout": "5s",
}
"""An endpoint that is not there is told after seconds; by Hadoop's own settings it takes minutes."""


def hadoop_version() -> str | None:
    """Version of the Hadoop client that Spark brings; None where a runtime keeps its jars elsewhere."""
    jars = (Path(pyspark.__file__).parent / "jars").glob("hadoop-client-api-*.jar")
    return next((jar.stem.removeprefix("hadoop-client-api-") for jar in jars), None)


def coordinates() -> list[str]:
    """Maven coordinates of S3A for this Spark, with no more of AWS's SDK than it uses; none where its Hadoop is not
    known."""
    if (hadoop := hadoop_version()) is None:
        return []
    sdk = _SDK_OF.get(hadoop, max(_SDK_OF.values()))  # what is newer works with what is older
    return [f"org.apache.hadoop:hadoop-aws:{hadoop}", *(f"software.amazon.awssdk:{name}:{sdk}" for name in _MODULES)]


def settings(given: Mapping[str, str]) -> dict[str, str]:
    """What a new session is told of S3 beside what it is `given`: AWS's variables that Spark does not read itself, the
    scheme s3, and when to give up."""
    endpoint = given.get("spark.hadoop.fs.s3a.endpoint") or os.environ.get("AWS_ENDPOINT_URL_S3")
    endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    told = {"spark.hadoop.fs.s3.impl": _IMPLEMENTATION, **_PATIENCE}
    if endpoint:
        told["spark.hadoop.fs.s3a.endpoint"] = endpoint
        if not is_of_aws(endpoint):  # few others have a name for each bucket, or regions
            told["spark.hadoop.fs.s3a.path.style.access"] = "true"
            region = region or "us-east-1"
    if region:
        told["spark.hadoop.fs.s3a.endpoint.region"] = region
    if "spark.hadoop.fs.s3a.access.key" in given:  # to which Spark would add the token of a variable
        told["spark.hadoop.fs.s3a.session.token"] = ""
    return told


def lacking(text: str) -> str | None:
    """What to do about a session that does not know S3A, or the scheme s3; None where a failure is another."""
    if _LACKS_S3A.search(text):
        version = hadoop_version() or "VERSION (that of Spark's Hadoop)"
        return (
            "the Spark session has no S3A, so that it reads no s3a://. Submit with --packages "
            f"org.apache.hadoop:hadoop-aws:{version}, or let `sparkrec` or `sparkrec.session(s3=True)` open it."
        )
    if _LACKS_S3.search(text):
        return (
            "this Spark session knows S3 as s3a:// alone. Write s3a:// in place of s3://, or set "
            f"spark.hadoop.fs.s3.impl to {_IMPLEMENTATION}."
        )
    return None
