"""The parameters of ALS as a Spark ML Estimator: MLlib's, and some of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.recommendation import _ALSParams
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.configfile import validate
from sparkrec.spark.algorithms.als.pack import Preference
from sparkrec.spark.algorithms.als.settings import AlsSettings
from sparkrec.spark.platform.sources import column, numbers, resolved

P = TypeVar("P", bound=Params)


def _param(name: str, doc: str, converter: Callable[[Any], Any]) -> Param[Any]:
    return Param(Params._dummy(), name, doc, converter)


def setter(name: str) -> Callable[[P, Any], P]:
    def set_it(self: P, value: Any) -> P:
        return self._set(**{name: value})

    set_it.__doc__ = f"Set `{name}`."
    return set_it


class AlsParams(_ALSParams):
    """MLlib's parameters, and these."""

    solver = _param("solver", "cholesky (exact), cg or ials++", TypeConverters.toString)
    confidenceCol = _param(
        "confidenceCol", "column of weights c of the ratings; without it 1, or 1 + alpha |r| of implicit feedback",
        TypeConverters.toString,
    )  # fmt: skip
    unobservedWeight = _param(
        "unobservedWeight", "weight of every cell without a rating; by default 1 of implicit feedback, else 0",
        TypeConverters.toFloat,
    )  # fmt: skip
    regScaling = _param(
        "regScaling", "what regParam is multiplied by: none; count, the number of ratings, as MLlib; ials, "
        "(number of ratings + unobservedWeight x size of the other side)^regExponent",
        TypeConverters.toString,
    )  # fmt: skip
    regExponent = _param("regExponent", "the exponent of regScaling ials", TypeConverters.toFloat)
    biases = _param("biases", "fit mean, user and item biases of explicit ratings first", TypeConverters.toBoolean)
    kernel = _param("kernel", "numba, or torch for executors with a GPU", TypeConverters.toString)
    checkpointDir = _param(
        "checkpointDir", "folder for the snapshots from which a fit that was killed resumes; without it there are none",
        TypeConverters.toString,
    )  # fmt: skip

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(numUserBlocks=None, numItemBlocks=None, solver="cholesky", regScaling="count")
        self._setDefault(
            kernel="numba", regExponent=1.0, biases=False, confidenceCol="", checkpointDir="", unobservedWeight=None
        )

    def settings(self) -> AlsSettings:
        """The parameters as the engine takes them. Raises ConfigError naming the one that is out of range."""
        implicit = self.getOrDefault("implicitPrefs")
        weight = self.getOrDefault("unobservedWeight")
        scaling = self.getOrDefault("regScaling")
        raw = {
            "rank": self.getOrDefault("rank"),
            "iterations": self.getOrDefault("maxIter"),
            "regularization": self.getOrDefault("regParam"),
            "regularization_scaling": "count" if scaling == "none" else scaling,
            "regularization_exponent": {"none": 0.0, "count": 1.0}.get(scaling, self.getOrDefault("regExponent")),
            "unobserved_weight": float(implicit) if weight is None else weight,
            "propensity_exponent": 0.0,
            "init_scale": 0.1 if implicit else 1.0,  # what loss falls fastest from; MLlib: 1
            "solver": self.getOrDefault("solver"),
            "kernel": self.getOrDefault("kernel"),
            "nonnegative": self.getOrDefault("nonnegative"),
            "biases": self.getOrDefault("biases"),
            "user_blocks": self.getOrDefault("numUserBlocks"),
            "item_blocks": self.getOrDefault("numItemBlocks"),
            "storage_level": self.getOrDefault("intermediateStorageLevel"),
            "snapshot_every": max(self.getOrDefault("checkpointInterval"), 1),
        }
        return validate(AlsSettings, raw, "ALS")

    def values(self) -> dict[str, Any]:
        """Value by name, of all that are set or have a default: AlsParams()._set(**values) is the same."""
        return {param.name: value for param, value in self.extractParamMap().items()}

    def set_columns(self, user: str, item: str) -> AlsParams:
        """Set the names of both id columns."""
        return self._set(userCol=user, itemCol=item)

    def preference(self) -> Preference | None:
        """What makes targets and confidences of implicit ratings."""
        return Preference(self.getOrDefault("alpha")) if self.getOrDefault("implicitPrefs") else None

    def rated(self, dataset: DataFrame) -> DataFrame:
        """What the fit reads: user_id, item_id, value, and the confidence where there is a column of it."""
        names = [self.getOrDefault("userCol"), self.getOrDefault("itemCol")]
        rating, confidence = self.getOrDefault("ratingCol"), self.getOrDefault("confidenceCol")
        dataset = resolved(dataset, [*names, *filter(None, (rating, confidence))], "ratings")
        columns = [column(name).alias(key) for name, key in zip(names, ("user_id", "item_id"), strict=True)]
        columns.append((numbers(dataset, rating) if rating else F.lit(1.0).cast("float")).alias("value"))
        if confidence:
            columns.append(numbers(dataset, confidence).alias("confidence"))
        return dataset.select(*columns)
