"""A fitted model with the ids of its DataFrame: what `fit` returns."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from sparkrec import __version__, storage
from sparkrec.config import kinds_that
from sparkrec.errors import InputError
from sparkrec.object_stores import is_s3
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.data.ids import with_strangers
from sparkrec.spark.in_place import carry_out, computed, write
from sparkrec.spark.model import explain as of_features
from sparkrec.spark.model.export import export
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.serving import bind, following, follows_history
from sparkrec.spark.platform.before_spark_4 import try_cast
from sparkrec.spark.platform.few import from_files, narrowed
from sparkrec.spark.platform.session import open_session
from sparkrec.spark.platform.sources import column, numbers, resolved
from sparkrec.spark.retrieval.similar import neighbours
from sparkrec.spark.retrieval.topk import score_pairs, topk
from sparkrec.spark.runner import Rows

_MANIFEST = "manifest.json"
_WHAT = "a model of sparkrec.fit"
_TABLES = ("train", "validation", "test", "users", "items")


@dataclass(frozen=True)
class Recommender:
    """A fitted model together with the ids of the DataFrame it was fitted to."""

    model: Model
    dataset: Dataset
    user: str
    item: str
    rating: str | None = None
    timestamp: str | None = None
    folder: str | None = None
    """Where it was loaded from."""

    def recommend(
        self,
        k: int = 10,
        users: DataFrame | Iterable[Any] | None = None,
        exclude_seen: bool = True,
        history: DataFrame | None = None,
    ) -> DataFrame:
        """The best k items of each user: the user column, rank (from 1), the item column, score.

        users    ids, or a column of them of the name that `fit` was given; None: everyone, or all of the history. Users
                 of whom nothing is known get no row
        history  all that some users did, with the columns of the fit (without ratings each row counts 1, without
                 timestamps their order is nothing): these are answered from it instead of from what the fit knows
                 of them, and may be new. Items that the fit does not know are passed over

        What is in the history counts as seen, too. Raises InputError where the model has trained rows of users alone,
        which no history can replace.
        """
        people, events = narrowed(self.dataset.users, "user", "user_id"), self._events()
        told = None
        if history is not None:
            if self.model.settings is None or not follows_history(self.model.settings):
                raise InputError(
                    f"history: a {self.kind} knows the users that it was fitted to and no others; expected "
                    f"{following()}. Fit one of these, or fit it again with the new rows."
                )
            named = self._named(history)
            people = with_strangers(people, named)
            told = named.join(people, "user_id").join(self._ids("item"), "item_id").select(*events.columns)
            told = computed("history", told)
        wanted = people.select("user")
        if users is not None:

            def listed(people: Rows, listed: Rows) -> DataFrame:
                return people.only(listed, "user_id").select("user").frame()

            wanted = carry_out("users", listed, people, self._listed(users, "user"))
        elif told is not None:
            wanted = told.select("user").distinct()
        changed = None if told is None else told.select("user").distinct()
        before = events if told is None else events.join(told, "user", "left_anti").unionByName(told)
        model, answered = self._served(wanted, before, changed)
        seen = None
        if exclude_seen:
            seen = events if told is None else events.unionByName(told)
        best = topk(model, k, users=answered, exclude=seen)

        def plan(best: Rows, people: Rows, items: Rows) -> DataFrame:
            listed = best.joined(people, "user").joined(items.select("item", "item_id"), "item")
            listed = listed.sorted("user_id", "rank").select(user="user_id", rank="rank", item="item_id", score="score")
            return listed.named(self.user, "rank", self.item, "score").frame()

        return carry_out("recommend", plan, best, people, self.dataset.items)

    def predict(self, pairs: DataFrame) -> DataFrame:
        """The pairs, and `score` float: null where the fit does not know the user or the item, as MLlib's NaN under
        coldStartStrategy nan; `.dropna(subset=["score"])` is its drop.

        pairs  the user and item columns, and any others but one called score
        """
        pairs = resolved(pairs, [self.user, self.item], "pairs")
        if "score" in pairs.columns:
            raise InputError("pairs: found a column score, which is what predict adds. Rename it.")
        names = pairs.columns
        given = [f"_{at}" for at in range(len(names))]
        ids = [self._cast(pairs, name, side).alias(f"{side}_id") for side, name in self._sides()]
        renamed = pairs.select(*(column(name).alias(new) for name, new in zip(names, given, strict=True)), *ids)

        def number(pairs: Rows, users: Rows, items: Rows) -> tuple[DataFrame, DataFrame]:
            users, items = users.select("user", "user_id"), items.select("item", "item_id")
            numbered = pairs.joined(users, "user_id", every=True).joined(items, "item_id", every=True)
            asked = numbered.where_present("user").where_present("item").select("user", "item").distinct()
            return numbered.select(*given, "user", "item").kept().frame(), asked.computed().frame()

        numbered, asked = carry_out("predict", number, renamed, self.dataset.users, self.dataset.items)
        model, _ = self._served(asked.select("user"), self._events(), None)

        def score(numbered: Rows, scored: Rows) -> DataFrame:
            scores = numbered.joined(scored, "user", "item", every=True).select(*given, "score")
            return scores.named(*names, "score").frame()

        return carry_out("predict", score, numbered, score_pairs(model, asked))

    def similar_items(self, items: DataFrame | Iterable[Any] | None = None, k: int = 10) -> DataFrame:
        """The k items most similar to each: the item column, rank (from 1), similar, score; see `similar.neighbours`.

        items  ids, or a column of them; None: all. Those that the fit does not know get no row
        """
        return self._similar("item", self.item, items, k)

    def similar_users(self, users: DataFrame | Iterable[Any] | None = None, k: int = 10) -> DataFrame:
        """The k users most similar to each: the user column, rank (from 1), similar, score; as `similar_items`."""
        return self._similar("user", self.user, users, k)

    def explain(self, user: Any, item: Any) -> DataFrame:
        """What the score of an item is the sum of, for a user of the fit; the largest part first.

        Of als, itemknn and ease: the item column and contribution, one row for each item of the user, and with biases
        one for them, whose item is null. Of lr and fm: field, with_field and contribution. InputError for other kinds,
        whose scores are no such sum, and for a user or an item that the fit does not know.
        """
        serving = self.model.serving
        if serving.explain is None and not serving.explains_fields:
            explained = kinds_that(lambda kind: kind.explain is not None or kind.explains_fields)
            raise InputError(f"explain: a {self.kind} does not say why; expected one of {', '.join(explained)}")
        pair = self._number("user", user), self._number("item", item)
        if serving.explain is None:
            asked = self.dataset.train.sparkSession.createDataFrame(
                [(*pair, None)], "user long, item long, timestamp timestamp"
            )
            parts = of_features.contributions(self.model, self.dataset, asked)
            return parts.select("field", "with_field", "contribution").orderBy(F.desc("contribution"))
        parts = serving.explain(self.model, self.dataset, *pair)
        named = parts.join(self._ids("item"), "item", "left")
        return named.select(F.col("item_id").alias(self.item), "contribution").orderBy(F.desc("contribution"))

    def save(self, path: str, overwrite: bool = False) -> None:
        """Keep the model in a folder, on any filesystem: Parquet, safetensors and JSON.

        All is written beside what the folder has, and counts once its manifest is there, which comes last: whoever is
        killed before leaves the old model as it was. Raises InputError, before anything is written, where the folder
        has something else, or a model and `overwrite` is false.
        """
        old = _read_manifest(path)
        if old is None and (storage.files(path) or storage.folders(path)):
            raise InputError(
                f"{path} holds something else, or {_WHAT} whose saving was cut short; expected an empty folder, or "
                "none. Choose another, or delete it."
            )
        if old is not None and not overwrite:
            raise InputError(f"{path} has a model: choose another folder, or save with overwrite=True")
        if old is not None and f"{path}/{old['folder']}" == self.folder:
            raise InputError(f"this model was loaded from {path}, and is there still. Save it elsewhere.")
        name = uuid.uuid4().hex
        folder = f"{path}/{name}"
        shape = self.model.write(f"{folder}/model")
        for table in _TABLES:
            write(getattr(self.dataset, table), f"{folder}/{table}")
        manifest = {
            "what": _WHAT,
            "version": __version__,
            "folder": name,
            "columns": {each: getattr(self, each) for each in ("user", "item", "rating", "timestamp")},
            "model": shape,
            "facts": self.model.facts,
            "dataset": self.dataset.manifest,
        }
        storage.write_json(f"{path}/{_MANIFEST}", manifest)
        if old is not None:
            storage.delete(f"{path}/{old['folder']}")

    def export(self, path: str, overwrite: bool = False) -> None:
        """Write a folder that answers without Spark, by `ExportedModel.load(path).recommend(users=[...])`.

        Raises InputError where the folder has something else, or an exported model and `overwrite` is false, and for a
        model that sees the context.
        """
        export(self.model, self.dataset, path, reference=f"{self.kind}@fit", overwrite=overwrite)

    @classmethod
    def load(cls, path: str, spark: SparkSession | None = None) -> Recommender:
        """What `save` kept; in the active session, or a new one. InputError where there is none."""
        manifest = _read_manifest(path)
        if manifest is None:
            raise InputError(
                f"{path} has no {_MANIFEST} of {_WHAT}: expected a folder that Recommender.save has written"
            )
        spark, folder = spark or open_session(s3=is_s3(path)), f"{path}/{manifest['folder']}"
        tables: dict[str, Any] = {table: from_files(spark, f"{folder}/{table}") for table in _TABLES}
        dataset = Dataset(reference="frame", folder=folder, manifest=manifest["dataset"], **tables)
        model = Model.read(spark, f"{folder}/model", manifest["model"], manifest["facts"])
        return cls(model, dataset, **manifest["columns"], folder=folder)

    @property
    def kind(self) -> str:
        """Of the model."""
        return "model" if self.model.settings is None else self.model.settings.kind

    def _events(self) -> DataFrame:
        """(user, item, value, confidence, timestamp) what the fit knows that users did."""
        return self.dataset.observed(True)

    def _ids(self, side: str) -> DataFrame:
        """(<side>, <side>_id)."""
        frame = self.dataset.users if side == "user" else self.dataset.items
        return frame.select(side, f"{side}_id")

    def _served(self, users: DataFrame, events: DataFrame, changed: DataFrame | None) -> tuple[Model, DataFrame]:
        """The model as it ranks for users, and (user) of those whom it can answer."""
        bound = bind(self.model, self.dataset, users, events, anew=changed)
        return bound.model, bound.users

    def _named(self, history: DataFrame) -> DataFrame:
        """(user_id, item_id, value, confidence, timestamp) of rows as `fit` takes them."""
        needed = [self.user, self.item, *([self.rating] if self.rating else [])]
        history = resolved(history, needed, "history", [self.timestamp] if self.timestamp else [])
        value: Column = numbers(history, self.rating) if self.rating else F.lit(1.0).cast("float")
        timed = self.timestamp is not None and self.timestamp in history.columns
        at = column(str(self.timestamp)) if timed else F.lit(None)
        rows = history.select(
            self._typed(history, self.user, "user").alias("user_id"),
            self._typed(history, self.item, "item").alias("item_id"),
            value.alias("value"),
            F.lit(1.0).cast("float").alias("confidence"),
            try_cast(at, "timestamp").alias("timestamp"),
        ).dropna(subset=["user_id", "item_id", "value"])
        if self.dataset.sequence_settings is not None:
            return rows
        once = [F.max(name).alias(name) for name in ("value", "confidence", "timestamp")]
        return rows.groupBy("user_id", "item_id").agg(*once)

    def _sides(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Sides, and what the fit's frame calls their ids."""
        return ("user", self.user), ("item", self.item)

    def _cast(self, frame: DataFrame, name: str, side: str) -> Column:
        """A column of ids as the type that the fit has: null where it cannot be one of its ids."""
        own = self._ids(side).schema[f"{side}_id"].dataType
        return column(name) if frame.select(column(name)).schema[0].dataType == own else try_cast(column(name), own)

    def _typed(self, frame: DataFrame, name: str, side: str) -> Column:
        """A column of ids, of the type that the fit has."""
        own = self._ids(side).schema[f"{side}_id"].dataType
        if (other := frame.select(column(name)).schema[0].dataType) != own:
            raise InputError(
                f"{name}: found ids of type {other.simpleString()}, expected {own.simpleString()} as in the fit. "
                "Cast them."
            )
        return column(name)

    def _listed(self, ids: DataFrame | Iterable[Any], side: str) -> DataFrame:
        """(<side>_id) of a list of ids, or of a frame with a column of them."""
        name = self.user if side == "user" else self.item
        if not isinstance(ids, DataFrame):
            kind = self._ids(side).schema[f"{side}_id"].dataType
            rows = [(each,) for each in ids]
            return self.dataset.train.sparkSession.createDataFrame(rows, f"{side}_id {kind.simpleString()}")
        ids = resolved(ids, [name], f"{side}s")
        return ids.select(self._cast(ids, name, side).alias(f"{side}_id"))

    def _similar(self, side: str, name: str, ids: DataFrame | Iterable[Any] | None, k: int) -> DataFrame:
        of = None
        if ids is not None:
            of = (
                self._ids(side)
                .join(self._listed(ids, side), f"{side}_id", "left_semi")
                .select(F.col(side).alias("user"))
            )
        model = self.model
        if model.sees_histories:
            model, _ = self._served(self.dataset.users.select("user"), self._events(), None)
        lists = neighbours(model, side, k, of)
        place = F.posexplode(F.arrays_zip("items", "scores")).alias("place", "one")
        cells = lists.select("user", place).select(
            "user",
            (F.col("place") + 1).alias("rank"),
            F.col("one.items").alias("similar"),
            F.col("one.scores").alias("score"),
        )
        own, other = self._ids(side).toDF("user", "own"), self._ids(side).toDF("similar", "other")
        named = cells.join(own, "user").join(other, "similar").orderBy("own", "rank")
        return named.select(F.col("own").alias(name), "rank", F.col("other").alias("similar"), "score")

    def _number(self, side: str, key: Any) -> int:
        found = self._ids(side).where(F.col(f"{side}_id") == F.lit(key)).head()
        if found is None:
            raise InputError(f"explain: {side} {key!r} is not in the fit")
        return int(found[side])


def _read_manifest(path: str) -> dict[str, Any] | None:
    found = storage.read_json(f"{path}/{_MANIFEST}")
    return found if isinstance(found, dict) and found.get("what") == _WHAT else None
