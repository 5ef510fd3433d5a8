"""From a column of a frame to the code of a field: its plain values, and what is fitted to them."""

from __future__ import annotations

import math
from typing import Any

import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec.config import DateField, FieldSettings, MultiField, NumericField
from sparkrec.errors import PrepareError
from sparkrec.fields import FieldCode
from sparkrec.spark.platform.before_spark_4 import to_arrow

_DATE_PARTS = {"hour": 24, "weekday": 7, "day": 32, "month": 13}


def plain(value: Column, settings: dict[str, Any]) -> Column:
    """What `FieldCode.encode` reads: strings; doubles; the number of a bucket, hour or day.

    settings  of the field, as `FieldCode` has them
    """
    if settings["kind"] == "numeric":
        number = value.cast("double")
        return F.when(~F.isnan(number), number)
    if settings["kind"] == "date":
        at = value.cast("timestamp")
        part = settings["part"]
        return {"hour": F.hour(at), "weekday": F.weekday(at), "day": F.dayofmonth(at), "month": F.month(at)}[part]
    buckets = settings.get("hash_buckets")

    def bucket(each: Column) -> Column:
        return F.pmod(F.xxhash64(each), F.lit(buckets)).cast("int")

    if settings["kind"] == "multi":
        listed = (
            F.split(value, _quoted(settings["separator"])) if settings["separator"] else value.cast("array<string>")
        )
        listed = F.filter(listed, lambda each: each.isNotNull() & (each != ""))
        return F.transform(listed, bucket) if buckets else listed
    text = value.cast("string")
    return F.when(text.isNotNull(), bucket(text)) if buckets else text


def _quoted(separator: str) -> str:
    """It as a regular expression."""
    return "".join(f"\\{each}" if not each.isalnum() else each for each in separator)


def fit_code(
    rows: DataFrame, value: Column, settings: FieldSettings, side: str, kind: str, first: int, most: int
) -> FieldCode:
    """Fit the code of a field to the values that rows have of it.

    value   plain values, as of `plain`
    kind    type of the column that they were made of
    first   number of the first feature of the field
    most    categories of a vocabulary: if there are more, they are hashed into so many buckets, as `hash_buckets` of
            the code's settings says

    Raises PrepareError for numbers that are infinite, or have no finite mean and deviation.
    """
    about: dict[str, Any] = {"side": side, "type": kind, "first": first}
    kept = settings.model_dump(mode="json")
    if isinstance(settings, NumericField):
        return _fit_numeric(rows, settings, value, about | {"settings": kept})
    if isinstance(settings, DateField):
        return FieldCode(settings.title, settings=kept, rows=1 + _DATE_PARTS[settings.part], **about)
    buckets = settings.hash_buckets
    if buckets is None:
        each = F.explode(value) if isinstance(settings, MultiField) else value
        counted = rows.select(each.alias("category")).dropna().groupBy("category").count()
        frequent = counted.where(F.col("count") >= settings.min_count).select("category")
        found = to_arrow(frequent.limit(most + 1))["category"].combine_chunks()
        if len(found) <= most:
            categories = found.take(pc.sort_indices(found))
            return FieldCode(settings.title, settings=kept, rows=2 + len(found), categories=categories, **about)
        buckets = most
    return FieldCode(settings.title, settings=kept | {"hash_buckets": buckets}, rows=1 + buckets, **about)


def _fit_numeric(rows: DataFrame, settings: NumericField, value: Column, about: dict[str, Any]) -> FieldCode:
    """Of no values: a code with the mean 0."""
    scaled = F.signum(value) * F.log1p(F.abs(value)) if settings.scale == "log" else value
    seen = F.count_if(F.abs(value) == float("inf")), F.min(value), F.max(value), F.avg(scaled), F.stddev_pop(scaled)
    infinite, low, high, mean, deviation = rows.agg(*seen).collect()[0]
    if infinite:
        raise PrepareError(f"feature {settings.title!r} is infinite in {infinite:,} rows. Correct the source.")
    if low is None:
        return FieldCode(settings.title, rows=2, **about)
    about |= {"low": low, "high": high}
    if settings.scale == "buckets":
        shares = [at / settings.buckets for at in range(1, settings.buckets)]
        edges = rows.agg(F.percentile(value, F.lit(shares))).collect()[0][0]
        edges = tuple(sorted(set(edges)))
        return FieldCode(settings.title, rows=2 + len(edges), edges=edges, **about)
    if not (math.isfinite(mean) and math.isfinite(deviation)):
        raise PrepareError(
            f"feature {settings.title!r}: numbers from {low:g} to {high:g} have no finite mean and deviation. Correct "
            "the source, or take scale log or buckets."
        )
    return FieldCode(settings.title, rows=2, mean=mean, deviation=deviation or 1.0, **about)
