"""Distributed training of recommender systems on Spark, Delta Lake and Horovod."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sparkrec.exported.model import ExportedModel
    from sparkrec.frames import fit
    from sparkrec.recommender import Recommender
    from sparkrec.spark.algorithms.als.estimator import ALS
    from sparkrec.spark.algorithms.als.model import ALSModel
    from sparkrec.spark.evaluation.evaluate import compare, evaluate, user_metrics
    from sparkrec.spark.evaluation.off_policy import evaluate_policy
    from sparkrec.spark.platform.lake import Lake
    from sparkrec.spark.platform.session import open_session as session

__all__ = [
    "ALS",
    "ALSModel",
    "ExportedModel",
    "Lake",
    "Recommender",
    "__version__",
    "compare",
    "evaluate",
    "evaluate_policy",
    "fit",
    "session",
    "user_metrics",
]

_PLACES = {
    "ALS": ("sparkrec.spark.algorithms.als.estimator", "ALS"),
    "ALSModel": ("sparkrec.spark.algorithms.als.model", "ALSModel"),
    "ExportedModel": ("sparkrec.exported.model", "ExportedModel"),
    "Lake": ("sparkrec.spark.platform.lake", "Lake"),
    "Recommender": ("sparkrec.recommender", "Recommender"),
    "compare": ("sparkrec.spark.evaluation.evaluate", "compare"),
    "evaluate_policy": ("sparkrec.spark.evaluation.off_policy", "evaluate_policy"),
    "evaluate": ("sparkrec.spark.evaluation.evaluate", "evaluate"),
    "fit": ("sparkrec.frames", "fit"),
    "user_metrics": ("sparkrec.spark.evaluation.evaluate", "user_metrics"),
    "session": ("sparkrec.spark.platform.session", "open_session"),
}


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first used: a kernel or a config needs no Spark."""
    if name not in _PLACES:
        raise AttributeError(f"module 'sparkrec' has no attribute {name!r}")
    from importlib import import_module

    from sparkrec.errors import lacks_spark

    module, attribute = _PLACES[name]
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise lacks_spark(error) or error from None
