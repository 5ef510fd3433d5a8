"""Digests of rows: nulls and places count, order does not."""

import numpy as np
import pytest
from pyspark.sql import functions as F

from sparkrec.kernels.hashing import spark_hash, spark_hash_of_texts
from sparkrec.spark.data.fingerprints import fingerprint
from sparkrec.spark.in_place import LocalRows, carry_out
from sparkrec.spark.platform.digests import content_digest

pytestmark = pytest.mark.spark

SCHEMA = "a string, b string, c array<string>, d map<string, int>, e struct<x: int, y: int>"
MIXED = "id long, score double, bytes binary, text string"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("tv", None, None, None, None), (None, "tv", None, None, None)),
        ((None, None, ["x", None], None, None), (None, None, [None, "x"], None, None)),
        ((None, None, None, {"k": None}, None), (None, None, None, {}, None)),
        ((None, None, None, None, (1, None)), (None, None, None, None, (None, 1))),
        (("", None, None, None, None), (None, None, None, None, None)),
    ],
)
def test_what_is_null_and_where_it_stands_counts(spark, one, other):
    mine, theirs = (content_digest(spark.createDataFrame([row], SCHEMA)) for row in (one, other))
    assert mine != theirs


def test_the_order_of_rows_and_their_partitions_do_not_count(spark):
    frame = spark.range(100).selectExpr("id", "id % 7 AS b")
    assert content_digest(frame) == content_digest(frame.orderBy("b").repartition(3))
    assert content_digest(frame) != content_digest(frame.union(frame.limit(2)))


@pytest.mark.parametrize("seed", [0, -7, 2**31 - 1, 2**31, 2**40])
def test_the_hash_of_a_seed_and_an_id_is_that_of_spark(spark, seed):
    ids = np.array([0, 1, -1, 2**40 + 3, -(2**63), 2**63 - 2])
    frame = spark.createDataFrame([(int(each),) for each in ids], "id long").coalesce(1)
    columns = {"seeded": (F.lit(seed), "id"), "alone": ("id",), "two": ("id", F.col("id") + 1)}
    found = frame.select(*(F.xxhash64(*of).alias(name) for name, of in columns.items())).collect()
    assert spark_hash(seed, ids).tolist() == [row.seeded for row in found]
    assert spark_hash(ids).tolist() == [row.alone for row in found]
    assert spark_hash(ids, ids + 1).tolist() == [row.two for row in found]


@pytest.mark.parametrize("letters", ["a", "0123456789", "äß日本🎵"])
def test_the_hash_of_a_text_is_that_of_spark_whatever_its_length(spark, letters):
    texts = [(letters * (n // len(letters) + 1))[:n] for n in range(70)]
    frame = spark.createDataFrame([(each,) for each in texts], "text string").coalesce(1)
    found = frame.select("text", F.xxhash64("text").alias("hash")).collect()
    encoded = [row.text.encode() for row in found]
    start = np.cumsum([0, *map(len, encoded)])
    hashed = spark_hash_of_texts(start, np.frombuffer(b"".join(encoded), np.uint8))
    assert hashed.tolist() == [row.hash for row in found]


@pytest.mark.usefixtures("everywhere")
def test_a_fingerprint_is_that_of_the_rows_wherever_they_are(spark):
    def told(frame):
        return carry_out("fingerprint", fingerprint, frame)

    frame = spark.createDataFrame([(1, 0.5, b"a", None), (2, None, b"b", "x"), (2, None, b"b", "x")], MIXED)
    here = LocalRows(spark, frame.toArrow())
    assert told(frame) == told(frame.orderBy("bytes").repartition(3)) == fingerprint(here)
    assert told(frame) != told(frame.union(frame.limit(2)))
    assert told(frame) != told(frame.fillna(0.0)) != told(frame.withColumn("text", F.lit(None).cast("string")))
