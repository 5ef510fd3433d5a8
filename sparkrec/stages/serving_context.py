"""Who asks for recommendations, and in which context: models as they rank for these users."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec.config import RecommendSettings, instant
from sparkrec.errors import InputError
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.data.features import encode, load, warn_of_extremes
from sparkrec.spark.model.field_queries import in_context, latest_user_features
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.serving import Bound, bind
from sparkrec.spark.platform.before_spark_4 import try_cast
from sparkrec.spark.platform.lake import Lake, Run
from sparkrec.spark.platform.sources import column, read_source


@dataclass(frozen=True)
class ServingContext:
    """Who asks, and in which context."""

    settings: RecommendSettings
    dataset: Dataset
    users: DataFrame
    """(user, user_id), of the dataset or not"""
    events: DataFrame
    """(user, item, value, confidence, timestamp) what users did."""

    def model(self, lake: Lake, run: Run) -> Bound:
        """A trained model, with a row for each of the users that it can answer: of one that sees the context, for this
        one."""

        def queries(users: DataFrame) -> DataFrame:
            known = latest_user_features(self.dataset).join(users, "user", "left_semi")
            layout = self.dataset.layout
            return in_context(known, self._context(lake)) if layout is not None and layout.context else known

        return bind(
            Model.load(lake, run),
            self.dataset,
            self.users,
            self.events,
            include_validation=bool(run.settings["include_validation"]),
            anew=self.users if self.settings.fresh else None,
            queries=queries,
        )

    def _context(self, lake: Lake) -> DataFrame:
        """(user, rows, weights) of contexts. Raises InputError where one is missing, or a user has two."""
        codes = load(self.dataset.folder).of("context")
        given, users, source = self.settings.context, self.users, self.settings.users
        types = {code.settings["column"]: code.type for code in codes}
        if unknown := sorted(set(given).difference(types)):
            raise InputError(f"context: the model sees no {', '.join(unknown)}; expected {', '.join(sorted(types))}")
        if source is not None:
            frame = read_source(lake.spark, source.source)
            there = [name for name in types if name in frame.columns and name not in given]
            kind = self.dataset.users.schema["user_id"].dataType
            listed = frame.select(try_cast(column(source.column), kind).alias("user_id"), *map(column, there))
            again = listed.groupBy("user_id").count().where("user_id IS NOT NULL AND count > 1")
            twice = again.head() if there else None
            if twice is not None:
                raise InputError(
                    f"{source.source.label} has user {twice.user_id!r} {twice['count']} times, each in a context: "
                    "expected one row of a user. Keep one of each."
                )
            users = users.join(listed, "user_id") if there else users
        values = [_literal(name, given[name], kind).alias(name) for name, kind in types.items() if name in given]
        read = [column(name).alias(name) for name in types if name not in given and name in users.columns]
        struct = [F.struct(*values, *read).alias("context")] if values or read else []
        label = "context (recommend.context and the columns of recommend.users)"
        told = users.select("user", *struct)
        encoded = encode(told, codes, label)
        warn_of_extremes(told, codes, label)
        return encoded


def _literal(name: str, value: str | int | float | bool | None, kind: str) -> Column:
    """A value of the config as a column has it. Raises InputError where it is none."""
    try:
        if kind == "timestamp" and isinstance(value, str):
            return F.lit(instant(value))
        return F.lit(pa.scalar(value).cast(_ARROW[kind]).as_py()).cast(kind)
    except (ValueError, pa.ArrowNotImplementedError, KeyError):
        raise InputError(f"context.{name}: found {value!r}, expected a value of type {kind}") from None


_ARROW = {
    "string": pa.string(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "timestamp": pa.timestamp("us", "UTC"),
    "date": pa.date32(),
}
