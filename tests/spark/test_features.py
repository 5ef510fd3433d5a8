"""Features on Spark: joins in time, fitting, encoding."""

import logging

import numpy as np
import pytest
from pyspark.sql import functions as F

from sparkrec.config import CategoricalField, DateField, FeatureSettings, MultiField, NumericField
from sparkrec.errors import InputError, PrepareError
from sparkrec.spark.data.features import as_of, encode, fit, load, save, warn_of_extremes

pytestmark = pytest.mark.spark


def events(spark, rows, schema):
    """With a struct `context` of the columns."""
    frame = spark.createDataFrame(rows, schema)
    return frame.select(F.struct(*frame.columns).alias("context"))


def numbers(rows):
    return np.frombuffer(rows, np.int32).tolist()


def test_nothing_later_than_an_event_is_seen(spark):
    seen = spark.createDataFrame([("a", 5, 1), ("a", 10, 2), ("a", 11, 3), ("b", 9, 4)], "user_id string, t int, n int")
    seen = seen.select("user_id", F.timestamp_seconds("t").alias("timestamp"), "n")
    known = spark.createDataFrame(
        [("a", 6, "x"), ("a", 10, "y"), ("a", 12, "z"), ("c", 1, "w")], "user_id string, t int, city string"
    )
    versions = known.select("user_id", F.timestamp_seconds("t").alias("user_since"), F.struct("city").alias("user"))
    found = {row.n: row.user.city if row.user else None for row in as_of(seen, versions, "user").collect()}
    assert found == {1: None, 2: "y", 3: "y", 4: None}


def test_codes_are_fitted_saved_and_used_again(spark, tmp_path):
    rows = [("phone", ["x", "y"], 1.0), ("tv", ["x"], 3.0), ("phone", None, None), ("radio", [], 5.0)]
    train = events(spark, rows, "device string, tags array<string>, price double")
    settings = FeatureSettings(
        context=[
            CategoricalField(column="device", min_count=2),
            MultiField(column="tags"),
            NumericField(column="price"),
        ]
    )
    codes = fit(train, settings)
    assert [(each.name, each.rows) for each in codes.fields] == [("device", 3), ("tags", 4), ("price", 2)]
    save(codes, str(tmp_path))
    assert load(str(tmp_path)).digest == codes.digest
    found = encode(train.coalesce(1), load(str(tmp_path)).of("context"), "the events").collect()
    assert [numbers(row.rows) for row in found] == [[2, 5, 6, 8], [1, 5, 8], [2, 3, 7], [1, 3, 8]]
    deviation = (8 / 3) ** 0.5
    assert np.frombuffer(found[0].weights, np.float32) == pytest.approx([1, 0.5, 0.5, -2 / deviation])


def test_what_is_scored_is_coded_as_what_was_trained_on_or_refused(spark):
    rows = [("phone", 1)]
    codes = fit(
        events(spark, rows, "device string, at int"), FeatureSettings(context=[CategoricalField(column="device")])
    )
    with pytest.raises(
        InputError, match="the asks has no column 'device', which feature 'device' was fitted to. Its columns are 'at'"
    ):
        encode(events(spark, [(1,)], "at int"), codes.fields, "the asks")
    with pytest.raises(
        InputError, match="column 'device' of feature 'device' is int, but was string when the dataset was"
    ):
        encode(events(spark, [(1,)], "device int"), codes.fields, "the asks")
    unknown = encode(events(spark, [("radio",), (None,)], "device string").coalesce(1), codes.fields, "the asks")
    assert [numbers(row.rows) for row in unknown.collect()] == [[1], [0]]


def test_a_wide_column_is_hashed_and_said(spark, caplog):
    train = events(spark, [(str(each),) for each in range(200)], "page string")
    with caplog.at_level(logging.WARNING):
        codes = fit(train, FeatureSettings(context=[CategoricalField(column="page")], max_categories=50))
    assert "feature 'page' has more than 50 categories: they are hashed into so many buckets" in caplog.text
    assert codes.fields[0].rows == 51
    rows = {numbers(row.rows)[0] for row in encode(train, codes.fields, "the events").collect()}
    assert rows <= set(range(1, 51))
    assert len(rows) > 40


@pytest.mark.parametrize("scale", ["standard", "log", "buckets"])
def test_a_number_beyond_those_of_train_counts_as_the_nearest_and_is_counted(spark, caplog, scale, tmp_path):
    train = events(spark, [(1.0,), (2.0,), (4.0,)], "x double")
    codes = fit(train, FeatureSettings(context=[NumericField(column="x", scale=scale)]))
    save(codes, str(tmp_path))
    codes = load(str(tmp_path))
    later = [1e300, float("inf"), -5.0, float("-inf"), 4.0, 1.0, float("nan"), None]
    frame = events(spark, [(each,) for each in later], "x double").coalesce(1)
    rows = [(row.rows, row.weights) for row in encode(frame, codes.fields, "asked").collect()]
    most, least, missing = rows[4], rows[5], rows[7]
    assert rows == [most, most, least, least, most, least, missing, missing]
    with caplog.at_level(logging.WARNING):
        warn_of_extremes(frame, codes.fields, "what is asked")
    assert "what is asked: 4 values of feature 'x' are beyond those of train, 1 to 4, and count as" in caplog.text


NUMBER = NumericField(column="x")


@pytest.mark.parametrize(
    ("field", "schema", "row", "message"),
    [
        (NUMBER, "x double", (None,), "feature 'x': column 'x' of the context is null in all 1 train rows"),
        (NUMBER, "x string", ("1",), "column 'x' of the context is string, and numeric takes a number"),
        (NUMBER, "x double", (float("inf"),), "feature 'x' is infinite in 1 rows"),
        (
            NUMBER,
            "x double",
            [(1e300,), (-1e300,)],
            "feature 'x': numbers from -1e.300 to 1e.300 have no finite mean and",
        ),
        (MultiField(column="x"), "x string", ("a|b",), "multi takes an array of strings or integers, or a string with"),
        (DateField(column="x", part="hour"), "x int", (3,), "feature 'x_hour': .* is int, and date takes a timestamp"),
    ],
)
def test_what_cannot_be_a_feature_is_named(spark, field, schema, row, message):
    with pytest.raises(PrepareError, match=message):
        fit(events(spark, row if isinstance(row, list) else [row], schema), FeatureSettings(context=[field]))
