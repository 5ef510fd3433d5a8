"""Digests of rows: nulls and places count, order does not."""

import pytest

from sparkrec.spark.platform.digests import content_digest

pytestmark = pytest.mark.spark

SCHEMA = "a string, b string, c array<string>, d map<string, int>, e struct<x: int, y: int>"


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
