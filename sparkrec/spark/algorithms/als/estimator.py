"""ALS as a Spark ML Estimator: MLlib's parameters, DataFrames in, DataFrames out.

Replacing `from pyspark.ml.recommendation import ALS` by `from sparkrec import ALS` is all that a user of MLlib's has to
do. Ids may be strings or longs as they are.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from typing import Any

from pyspark import StorageLevel, keyword_only
from pyspark.ml.base import Estimator
from pyspark.ml.util import DefaultParamsReadable, DefaultParamsWritable
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.errors import InputError
from sparkrec.spark.algorithms.als.fit import Factors, fit_factors
from sparkrec.spark.algorithms.als.layout import columns_of
from sparkrec.spark.algorithms.als.model import ALSModel, Fitted
from sparkrec.spark.algorithms.als.params import AlsParams, setter
from sparkrec.spark.data.id_column import IdColumn
from sparkrec.spark.data.naming import named
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.platform.digests import content_digest
from sparkrec.spark.platform.failures import mendable
from sparkrec.spark.platform.keeping import kept
from sparkrec.spark.runner import Rows


class ALS(Estimator[ALSModel], AlsParams, DefaultParamsWritable, DefaultParamsReadable["ALS"]):
    """Blockwise weighted alternating least squares (Hu et al. 2008; Zhou et al. 2008; Rendle et al. 2022).

    >>> als = ALS(rank=64, implicitPrefs=True, userCol="user", itemCol="item", ratingCol="plays")
    >>> model = als.fit(plays)
    >>> model.recommendForAllUsers(10, exclude=plays)

    The parameters and their defaults are those of `pyspark.ml.recommendation.ALS`, and mean the same; numUserBlocks
    and numItemBlocks are chosen from the data unless they are set. Of its own it has those of `AlsParams` and

    warmStart  an ALSModel whose item factors the first iteration starts from; kept in memory only
    """

    _input_kwargs: dict[str, Any]

    @keyword_only
    def __init__(
        self,
        *,
        rank: int = 10,
        maxIter: int = 10,
        regParam: float = 0.1,
        numUserBlocks: int | None = None,
        numItemBlocks: int | None = None,
        implicitPrefs: bool = False,
        alpha: float = 1.0,
        userCol: str = "user",
        itemCol: str = "item",
        seed: int | None = None,
        ratingCol: str = "rating",
        nonnegative: bool = False,
        checkpointInterval: int = 10,
        intermediateStorageLevel: str = "MEMORY_AND_DISK",
        finalStorageLevel: str = "MEMORY_AND_DISK",
        coldStartStrategy: str = "nan",
        blockSize: int = 4096,
        solver: str = "cholesky",
        confidenceCol: str = "",
        unobservedWeight: float | None = None,
        regScaling: str = "count",
        regExponent: float = 1.0,
        biases: bool = False,
        kernel: str = "numba",
        checkpointDir: str = "",
        warmStart: ALSModel | None = None,
    ) -> None:
        super().__init__()
        self.warmStart: ALSModel | None = None
        self.setParams(**self._input_kwargs)

    def setParams(self, *, warmStart: ALSModel | None = None, **params: Any) -> ALS:
        """Set several parameters at once."""
        if warmStart is not None:
            self.warmStart = warmStart
        return self._set(**params)

    setRank = setter("rank")
    setMaxIter = setter("maxIter")
    setRegParam = setter("regParam")
    setNumUserBlocks = setter("numUserBlocks")
    setNumItemBlocks = setter("numItemBlocks")
    setImplicitPrefs = setter("implicitPrefs")
    setAlpha = setter("alpha")
    setUserCol = setter("userCol")
    setItemCol = setter("itemCol")
    setSeed = setter("seed")
    setRatingCol = setter("ratingCol")
    setNonnegative = setter("nonnegative")
    setCheckpointInterval = setter("checkpointInterval")
    setIntermediateStorageLevel = setter("intermediateStorageLevel")
    setFinalStorageLevel = setter("finalStorageLevel")
    setColdStartStrategy = setter("coldStartStrategy")
    setPredictionCol = setter("predictionCol")
    setBlockSize = setter("blockSize")
    setSolver = setter("solver")
    setConfidenceCol = setter("confidenceCol")
    setUnobservedWeight = setter("unobservedWeight")
    setRegScaling = setter("regScaling")
    setRegExponent = setter("regExponent")
    setBiases = setter("biases")
    setKernel = setter("kernel")
    setCheckpointDir = setter("checkpointDir")

    def setNumBlocks(self, value: int) -> ALS:
        """Set both `numUserBlocks` and `numItemBlocks`."""
        return self._set(numUserBlocks=value, numItemBlocks=value)

    def setWarmStart(self, model: ALSModel) -> ALS:
        """Start from the item factors of a model."""
        self.warmStart = model
        return self

    def _scratch(self, ratings: DataFrame, warm_start: DataFrame | None) -> str | None:
        """A folder of `checkpointDir` for fits of these ratings in this sense, from this start: what the engine's own
        fingerprint cannot see. None: nothing is kept."""
        folder = self.getOrDefault("checkpointDir")
        if not folder:
            return None
        alpha = self.getOrDefault("alpha") if self.getOrDefault("implicitPrefs") else None
        about = [content_digest(ratings), alpha, warm_start and content_digest(warm_start)]
        return f"{folder}/{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]}"

    @mendable()
    def _fit(self, dataset: DataFrame) -> ALSModel:
        settings = self.settings()
        rated = self.rated(dataset)
        users = IdColumn.of(rated, "user_id", self.getUserCol())
        items = IdColumn.of(rated, "item_id", self.getItemCol())
        warm_start = None
        if self.warmStart is not None:
            if self.warmStart.rank != settings.rank:
                raise InputError(f"warmStart has rank {self.warmStart.rank}, expected {settings.rank} as this ALS")
            start = self.warmStart.itemFactors.select(F.col("id").alias("item_id"), F.col("features").alias("value"))
            warm_start = items.replace(start, "item_id", "id").where("id IS NOT NULL")
        ratings = items.replace(users.replace(rated, "user_id", "user"), "item_id", "item")
        with named(users.title("user"), items.title("item")):
            fit = partial(
                fit_factors,
                settings=settings,
                seed=self.getSeed() & 0xFFFFFFFF,
                scratch=self._scratch(ratings, warm_start),
                preference=self.preference(),
            )

            def plan(ratings: Rows, warm_start: Rows | None) -> tuple[Factors, DataFrame, DataFrame]:
                fitted = fit(ratings, warm_start={} if warm_start is None else {"item": warm_start})
                return fitted, fitted.users.frame(), fitted.items.frame()

            fitted, x, y = carry_out("als", plan, columns_of(ratings), warm_start)
        level = getattr(StorageLevel, self.getFinalStorageLevel())
        state = Fitted(
            users=kept(x, level),
            items=kept(y, level),
            user_ids=users,
            item_ids=items,
            mean=fitted.unseen_item[-1] if settings.biases else 0.0,
            history=fitted.history,
            params=AlsParams()._set(**self.values()),
        )
        state.users.count()  # to hold them before what they were computed from is let go
        state.items.count()
        model = ALSModel(state)
        model.ratings = dataset
        return self._copyValues(model)
