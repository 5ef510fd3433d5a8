"""What ALS fits, as a Spark ML Model: recommendations, similar items, folding in, explanations."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyspark.errors import AnalysisException
from pyspark.ml.base import Model as MlModel
from pyspark.ml.recommendation import _ALSModelParams
from pyspark.ml.util import DefaultParamsReader, DefaultParamsWriter, MLReadable, MLReader, MLWritable, MLWriter
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T
from pyspark.sql.pandas.functions import pandas_udf

from sparkrec import storage
from sparkrec.errors import InputError
from sparkrec.spark.algorithms.als.fold import explain, fold_in
from sparkrec.spark.algorithms.als.layout import columns_of
from sparkrec.spark.algorithms.als.params import AlsParams, setter
from sparkrec.spark.algorithms.als.settings import AlsSettings
from sparkrec.spark.data.id_column import IdColumn
from sparkrec.spark.data.naming import named
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import dense_vectors
from sparkrec.spark.platform.failures import mendable
from sparkrec.spark.platform.keeping import checkpointed
from sparkrec.spark.platform.sources import column, resolved
from sparkrec.spark.retrieval.similar import similar
from sparkrec.spark.retrieval.topk import rank


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves: factors (id long, value array<float>), with biases (x, b_u, 1) and (y, 1, mean + b_i)."""

    users: DataFrame
    items: DataFrame
    user_ids: IdColumn
    item_ids: IdColumn
    mean: float
    """Of the ratings, where there are biases."""
    history: list[dict[str, float]]
    params: AlsParams
    """Of the fit."""
    folder: str = ""
    """Name of the one that it was loaded from, in that of the model."""

    @property
    def settings(self) -> AlsSettings:
        return self.params.settings()

    @property
    def size(self) -> int:
        """Length of the rows."""
        return self.settings.rank + 2 * self.settings.biases


class _AlsModelWriter(MLWriter):
    def __init__(self, model: ALSModel) -> None:
        super().__init__()
        self._model = model

    def save(self, path: str) -> None:
        """Keep the model in a folder, beside what that has: it counts once its metadata is there, which comes last and
        at once, so that whoever is killed before leaves the old model as it was.

        Raises InputError, before anything is written, where the folder is there and `overwrite` was not called.
        """
        older = storage.folders(path)
        if not self.shouldOverwrite and (storage.exists(path) or self._has_metadata(path)):
            raise InputError(f"{path} is there already. Choose another folder, or save by model.write().overwrite().")
        fitted, tables = self._model.fitted, f"tables-{uuid.uuid4().hex}"
        extra = {
            "fit": fitted.params.values(),
            "tables": tables,
            "users": fitted.user_ids.save(f"{path}/{tables}/userIds"),
            "items": fitted.item_ids.save(f"{path}/{tables}/itemIds"),
            "mean": fitted.mean,
            "history": fitted.history,
        }
        fitted.users.write.parquet(f"{path}/{tables}/userFactors")
        fitted.items.write.parquet(f"{path}/{tables}/itemFactors")
        metadata = DefaultParamsWriter._get_metadata_to_save(self._model, self.sparkSession, extra)
        if storage.exists(f"{path}/{tables}/userFactors"):
            storage.delete(f"{path}/metadata/.part-00000.crc")  # of what Hadoop wrote there, if it did
            storage.write(f"{path}/metadata/part-00000", metadata.encode())
        else:  # a path without a scheme, on the cluster's own file system, which Spark alone knows
            text = self.sparkSession.createDataFrame([(metadata,)], "value string").coalesce(1)
            text.write.mode("overwrite").text(f"{path}/metadata")
        for name in older:
            if name.startswith("tables-") and name != fitted.folder:
                storage.delete(f"{path}/{name}")

    saveImpl = save

    def _has_metadata(self, path: str) -> bool:
        try:
            _ = self.sparkSession.read.text(f"{path}/metadata").schema
        except AnalysisException:
            return False
        return True


class _AlsModelReader(MLReader["ALSModel"]):
    def load(self, path: str) -> ALSModel:
        spark = self.sparkSession
        metadata = DefaultParamsReader.loadMetadata(path, spark)
        params = AlsParams()._set(**metadata["fit"])
        if "tables" not in metadata:
            raise InputError(f"{path} has a model of an earlier version of sparkrec. Fit and save it again.")
        tables = f"{path}/{metadata['tables']}"
        model = ALSModel(
            Fitted(
                users=spark.read.parquet(f"{tables}/userFactors"),
                items=spark.read.parquet(f"{tables}/itemFactors"),
                user_ids=IdColumn.load(spark, f"{tables}/userIds", metadata["users"]),
                item_ids=IdColumn.load(spark, f"{tables}/itemIds", metadata["items"]),
                mean=metadata["mean"],
                history=metadata["history"],
                params=params,
                folder=metadata["tables"],
            )
        )
        model._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(model, metadata)
        return model


class ALSModel(MlModel, _ALSModelParams, MLWritable, MLReadable["ALSModel"]):
    """What `ALS` fits. Methods that MLlib's model has return the same columns as it."""

    def __init__(self, fitted: Fitted) -> None:
        super().__init__()
        self.fitted = fitted
        self.ratings: DataFrame | None = None
        """What the model was fitted to; None in a model that was loaded."""

    setUserCol = setter("userCol")
    setItemCol = setter("itemCol")
    setPredictionCol = setter("predictionCol")
    setColdStartStrategy = setter("coldStartStrategy")
    setBlockSize = setter("blockSize")

    @property
    def rank(self) -> int:
        """Length of the factors."""
        return self.fitted.settings.rank

    @property
    def userFactors(self) -> DataFrame:
        """id, features array<float>: `rank` factors, and with biases b_u and 1."""
        return self._features(self.fitted.users, self.fitted.user_ids)

    @property
    def itemFactors(self) -> DataFrame:
        """id, features array<float>: `rank` factors, and with biases 1 and mean + b_i."""
        return self._features(self.fitted.items, self.fitted.item_ids)

    @property
    def history(self) -> DataFrame:
        """A row for each iteration: iteration, loss, seconds, kernel_seconds of all tasks together."""
        return self._spark.createDataFrame(pd.DataFrame(self.fitted.history))

    def plotHistory(self) -> Any:
        """Loss by iteration and seconds by iteration, as a matplotlib figure (`pip install sparkrec[plot]`)."""
        import matplotlib.pyplot as plt

        history = pd.DataFrame(self.fitted.history)
        figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
        for axis, what in zip(axes, ("loss", "seconds"), strict=True):
            axis.plot(history["iteration"], history[what], marker=".")
            axis.set_xlabel("iteration")
            axis.set_ylabel(what)
        return figure

    def _transform(self, dataset: DataFrame) -> DataFrame:
        columns, prediction = [self.getUserCol(), self.getItemCol()], self.getOrDefault("predictionCol")
        resolved(dataset, columns, "dataset")
        row = F.struct(*map(column, dataset.columns)).alias("row")  # whose names meet none of ours
        ids = [column(name).alias(key) for name, key in zip(columns, ("user_id", "item_id"), strict=True)]
        score = pandas_udf(_dot, "float")  # type: ignore[call-overload]
        nan = F.lit(float("nan")).cast("float")  # pandas makes it null
        scored = (
            dataset.select(row, *ids)
            .join(self.userFactors.toDF("user_id", "x"), "user_id", "left")
            .join(self.itemFactors.toDF("item_id", "y"), "item_id", "left")
            .select("row", F.coalesce(score("x", "y"), nan).alias("score"))
        )
        if self._drops():
            scored = scored.dropna(subset=["score"])
        return scored.select("row.*", F.col("score").alias(prediction))

    def recommendForAllUsers(
        self, numItems: int, exclude: DataFrame | None = None, candidates: DataFrame | None = None
    ) -> DataFrame:
        """The best items of every user: userCol, recommendations array<struct<itemCol, rating float>>, best first.

        exclude     (userCol, itemCol) pairs not to recommend: the ratings, to leave out what a user knows
        candidates  (itemCol) items to recommend; None: all
        """
        return self._recommend(numItems, None, exclude, candidates, swapped=False)

    def recommendForAllItems(
        self, numUsers: int, exclude: DataFrame | None = None, candidates: DataFrame | None = None
    ) -> DataFrame:
        """The best users of every item: itemCol, recommendations array<struct<userCol, rating float>>, best first."""
        return self._recommend(numUsers, None, exclude, candidates, swapped=True)

    def recommendForUserSubset(
        self,
        dataset: DataFrame,
        numItems: int,
        exclude: DataFrame | None = None,
        candidates: DataFrame | None = None,
    ) -> DataFrame:
        """As `recommendForAllUsers`, for the users in column userCol of `dataset` that the model knows."""
        return self._recommend(numItems, dataset, exclude, candidates, swapped=False)

    def recommendForItemSubset(
        self,
        dataset: DataFrame,
        numUsers: int,
        exclude: DataFrame | None = None,
        candidates: DataFrame | None = None,
    ) -> DataFrame:
        """As `recommendForAllItems`, for the items in column itemCol of `dataset` that the model knows."""
        return self._recommend(numUsers, dataset, exclude, candidates, swapped=True)

    def similarItems(self, k: int) -> DataFrame:
        """The k items with the most similar factors: itemCol, similar array<struct<itemCol, rating float>>.

        `rating` is the cosine of the factors, biases left aside.
        """
        own = F.slice("value", 1, self.rank).alias("value")
        vectors = self.fitted.items.select("id", F.lit(None).cast("array<int>").alias("index"), own)
        ids = self.fitted.item_ids
        best = similar(vectors, self.rank, "dense", k)
        return self._lists(best, ids, self.getItemCol(), ids, self.getItemCol(), "similar")

    @mendable()
    def foldIn(self, ratings: DataFrame, side: str = "user") -> ALSModel:
        """A model in which the users in `ratings` have the factors that fit them best, the items as they are.

        ratings  all ratings of new or changed users, with the columns of the fit; other users stay as they are
        side     "user", or "item" for new or changed items and fixed users

        Ratings of items that the model does not know say nothing about a user's factors and are left out.
        """
        if side not in ("user", "item"):
            raise InputError(f"side: found {side!r}, expected 'user' or 'item'")
        fitted, rated = self.fitted, self._rated(ratings)
        of_users = side == "user"
        fixed_side = "item" if of_users else "user"
        known, fixed_ids = (fitted.user_ids, fitted.item_ids) if of_users else (fitted.item_ids, fitted.user_ids)
        ids = IdColumn.of(rated, f"{side}_id", self.getUserCol() if of_users else self.getItemCol(), known)
        numbered = fixed_ids.replace(ids.replace(rated, f"{side}_id", "user"), f"{fixed_side}_id", "item")
        with named(ids.title(side), fixed_ids.title(fixed_side)):  # what is folded in is called user
            fold = partial(
                fold_in,
                settings=fitted.settings,
                shift=0.0 if of_users else fitted.mean,
                own_first=of_users,
                preference=fitted.params.preference(),
            )
            fixed = fitted.items if of_users else fitted.users
            folded = carry_out("als", lambda *rows: fold(*rows).frame(), columns_of(numbered), fixed)
        if of_users:
            changed = replace(fitted, users=_updated(fitted.users, folded), user_ids=ids)
        else:
            changed = replace(fitted, items=_updated(fitted.items, folded), item_ids=ids)
        return self._copyValues(ALSModel(changed))

    def explain(self, user: Any, item: Any, ratings: DataFrame | None = None) -> DataFrame:
        """What each rating of a user adds to the score of an item: itemCol, contribution; the largest first.

        ratings  those of the fit; may be left out unless the model was loaded

        With the item factors as they are, the score is y_item' W sum_i c_i p_i y_i, W the inverse of the user's system
        (Hu et al. 2008, section 5): a term for each item of the user, and with biases a row with a null item for them.
        """
        ratings = self.ratings if ratings is None else ratings
        if ratings is None:
            raise InputError("explain: this model was loaded without its ratings: pass them as ratings=")
        item_col, settings = self.getItemCol(), self.fitted.settings
        own, target = self._row(self.userFactors, "user", user), self._row(self.itemFactors, "item", item)
        rated = self._rated(ratings).where(F.col("user_id") == user).drop("user_id")
        rows = rated.join(self.itemFactors.toDF("item_id", "row"), "item_id").withColumnRenamed("item_id", "item")
        explained = explain(rows, own, target, self.fitted.items, settings, self.fitted.params.preference())
        kind = self.fitted.item_ids.kind
        schema = T.StructType().add(item_col, kind).add("contribution", T.DoubleType())
        return self._spark.createDataFrame(explained, schema)

    def write(self) -> MLWriter:
        """Parquet and JSON."""
        return _AlsModelWriter(self)

    @classmethod
    def read(cls) -> MLReader[ALSModel]:
        """The counterpart of `write`."""
        return _AlsModelReader()

    @property
    def _spark(self) -> SparkSession:
        return self.fitted.users.sparkSession

    def _rated(self, ratings: DataFrame) -> DataFrame:
        """As the fit reads ratings, with this model's id columns."""
        return self.fitted.params.copy().set_columns(self.getUserCol(), self.getItemCol()).rated(ratings)

    def _drops(self) -> bool:
        strategy = self.getColdStartStrategy()
        if strategy not in ("nan", "drop"):
            raise InputError(f"coldStartStrategy: found {strategy!r}, expected 'nan' or 'drop'")
        return bool(strategy == "drop")

    def _row(self, factors: DataFrame, what: str, key: Any) -> NDArray[np.float64]:
        found = factors.where(F.col("id") == key).collect()
        if not found:
            raise InputError(f"explain: {what} {key!r} is not in the model")
        return np.array(found[0].features, np.float64)

    @staticmethod
    def _features(factors: DataFrame, ids: IdColumn) -> DataFrame:
        return ids.restore(factors, "id", "id").withColumnRenamed("value", "features")

    def _recommend(
        self,
        k: int,
        subset: DataFrame | None,
        exclude: DataFrame | None,
        candidates: DataFrame | None,
        swapped: bool,
    ) -> DataFrame:
        """The best k of one side (`what`) for each of the other (`whom`)."""
        fitted = self.fitted
        whom, whom_col, whom_rows = fitted.user_ids, self.getUserCol(), fitted.users
        what, what_col, what_rows = fitted.item_ids, self.getItemCol(), fitted.items
        if swapped:
            whom, whom_col, whom_rows, what, what_col, what_rows = what, what_col, what_rows, whom, whom_col, whom_rows

        def numbered(frame: DataFrame | None, label: str, *wanted: tuple[IdColumn, str, str]) -> DataFrame | None:
            """The columns of ids that the model knows, as numbers."""
            if frame is None:
                return None
            frame = resolved(frame, [title for _, title, _ in wanted], label)
            frame = frame.select(*[column(title).alias(f"{name}_id") for _, title, name in wanted])
            for ids, _, name in wanted:
                frame = ids.replace(frame, f"{name}_id", name)
            return frame.dropna()

        best = rank(
            _dense(whom_rows, what_rows, fitted.size),
            k,
            numbered(subset, "dataset", (whom, whom_col, "user")),
            exclude=numbered(exclude, "exclude", (whom, whom_col, "user"), (what, what_col, "item")),
            items=numbered(candidates, "candidates", (what, what_col, "item")),
        )
        return self._lists(best, whom, whom_col, what, what_col, "recommendations")

    @staticmethod
    def _lists(best: DataFrame, whom: IdColumn, whom_col: str, what: IdColumn, what_col: str, name: str) -> DataFrame:
        """Answers of `rank` as MLlib gives them."""
        pairs = F.arrays_zip(F.col("items").alias("item"), F.col("scores").alias("rating"))
        listed = best.select("user", pairs.alias("all"))
        if what.numbers is not None:
            cell = F.posexplode("all").alias("place", "cell")
            cells = what.restore(listed.select("user", cell).select("user", "place", "cell.*"), "item", "item_id")
            ordered = F.sort_array(F.collect_list(F.struct("place", "item_id", "rating")))
            plain = F.transform(ordered, lambda one: F.struct(one["item_id"], one["rating"]))
            listed = cells.groupBy("user").agg(plain.alias("all"))
        named_cells = T.ArrayType(T.StructType().add(what_col, what.kind).add("rating", T.FloatType()))
        titled = listed.select("user", F.col("all").cast(named_cells).alias("all"))
        return whom.restore(titled, "user", "whom").toDF(whom_col, name)


def _updated(old: DataFrame, new: DataFrame) -> DataFrame:
    """Rows of `new`, and of `old` where `new` has none of that id."""
    new = checkpointed(new)
    return checkpointed(old.join(new, "id", "left_anti").unionByName(new))


def _dense(users: DataFrame, items: DataFrame, size: int) -> Model:
    return Model(
        users=dense_vectors(users.toDF("user", "value"), "user"),
        items=dense_vectors(items.toDF("item", "value"), "item"),
        size=size,
        user_storage="dense",
        item_storage="dense",
    )


def _dot(x: pd.Series, y: pd.Series) -> pd.Series:
    known = (x.notna() & y.notna()).to_numpy()
    scores = np.full(len(x), np.nan, np.float32)
    if known.any():
        scores[known] = np.einsum("nd,nd->n", np.stack(x[known].to_list()), np.stack(y[known].to_list()))
    return pd.Series(scores)
